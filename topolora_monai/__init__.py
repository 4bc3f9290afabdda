"""Topology-aware, parameter-efficient segmentation with SAM-family networks, as MONAI parts."""

__version__ = "0.1.0"
