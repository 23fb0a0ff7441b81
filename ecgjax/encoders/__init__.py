"""Encoders by name: made from settings or from a config, and applied as pure functions."""

from ecgjax.encoders.clocs_cnn import ClocsCNN
from ecgjax.encoders.encoder import Encoder
from ecgjax.encoders.from_config import create_split
from ecgjax.encoders.grid import FeatureMap, Grid
from ecgjax.encoders.lead_resnet import LeadResNet
from ecgjax.encoders.lead_wise import LeadWise
from ecgjax.encoders.pclr_resnet import PCLRResNet
from ecgjax.encoders.physio_transformer import PhysioTransformer
from ecgjax.encoders.registry import (
    ENCODERS,
    PRECISIONS,
    Arrays,
    Split,
    abstract,
    apply,
    apply_with_features,
    create,
    merge,
    reconstruct,
    split,
    stats_of,
)
from ecgjax.encoders.resnet import ResNet18
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.encoders.temporal_net import DualTemporalNet, TemporalNet
from ecgjax.encoders.token_pool import Pool
from ecgjax.encoders.vit import ViT1D
from ecgjax.encoders.xresnet import XResNet1d

__all__ = [
    "ENCODERS",
    "PRECISIONS",
    "Arrays",
    "ClocsCNN",
    "DualTemporalNet",
    "Encoder",
    "EncoderSettings",
    "FeatureMap",
    "Grid",
    "LeadResNet",
    "LeadWise",
    "PCLRResNet",
    "PhysioTransformer",
    "Pool",
    "ResNet18",
    "Split",
    "TemporalNet",
    "ViT1D",
    "XResNet1d",
    "abstract",
    "apply",
    "apply_with_features",
    "create",
    "create_split",
    "merge",
    "reconstruct",
    "split",
    "stats_of",
]
