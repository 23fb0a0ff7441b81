"""Stores, which read signals by record number: ArrayRecord shards, packed copies, and several stores as one."""
