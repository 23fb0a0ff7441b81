"""Measurements on a machine that is lent for minutes: parts with time limits, and two frameworks that take turns."""
