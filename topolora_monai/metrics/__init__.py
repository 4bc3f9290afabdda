"""What MONAI's metrics lack."""

from topolora_monai.metrics.cldice import cldice
from topolora_monai.metrics.dice import PooledDice
from topolora_monai.metrics.overlap import OverlapScores, ThresholdCurve, threshold_bin, to_16_bit

__all__ = ["OverlapScores", "PooledDice", "ThresholdCurve", "cldice", "threshold_bin", "to_16_bit"]
