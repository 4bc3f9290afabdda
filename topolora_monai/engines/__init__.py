"""What MONAI's and Ignite's engines lack."""

from topolora_monai.engines.batches import (
    FiniteAnswers,
    PredictionWriter,
    TargetLoss,
    batch_items,
    prepare_batch,
    probabilities_and_targets,
)
from topolora_monai.engines.checkpoint import RunCheckpoint
from topolora_monai.engines.ema import AdapterEMA
from topolora_monai.engines.handlers import (
    BalanceLoss,
    BatchMixing,
    EarlyStopping,
    EpochSeed,
    GradientClipping,
    LossRamp,
    NonFiniteGuard,
    TimeLeft,
    say_validation,
)
from topolora_monai.engines.output import lock_output, plain_errors, provenance, speak_plainly, unlock_output
from topolora_monai.engines.prompts import PromptRounds, sample_clicks
from topolora_monai.engines.recipe import Recipe, training_workflow
from topolora_monai.engines.schedules import ScheduleSteps, lr_schedule
from topolora_monai.engines.settings import check_classes, check_ids, check_settings, check_threshold_by
from topolora_monai.engines.tracking import Tracker, TrainingTracking, ValidationTracking
from topolora_monai.io.json_files import read_json, write_json
from topolora_monai.io.places import check_apart, prepare_output
from topolora_monai.model.inferers import AutocastInferer, default_precision
from topolora_monai.model.scenes import SceneSegmenter
from topolora_monai.model.uncertainty import RiskCoverage, Uncertainty, UncertaintyInferer
from topolora_monai.model.writing import write_classes
from topolora_monai.parsing import parse_bool

__all__ = [
    "AdapterEMA",
    "AutocastInferer",
    "BalanceLoss",
    "BatchMixing",
    "EarlyStopping",
    "EpochSeed",
    "FiniteAnswers",
    "GradientClipping",
    "LossRamp",
    "NonFiniteGuard",
    "PredictionWriter",
    "PromptRounds",
    "Recipe",
    "RiskCoverage",
    "RunCheckpoint",
    "SceneSegmenter",
    "ScheduleSteps",
    "TargetLoss",
    "TimeLeft",
    "Tracker",
    "TrainingTracking",
    "Uncertainty",
    "UncertaintyInferer",
    "ValidationTracking",
    "batch_items",
    "check_apart",
    "check_classes",
    "check_ids",
    "check_settings",
    "check_threshold_by",
    "default_precision",
    "lock_output",
    "lr_schedule",
    "parse_bool",
    "plain_errors",
    "prepare_batch",
    "prepare_output",
    "probabilities_and_targets",
    "provenance",
    "read_json",
    "sample_clicks",
    "say_validation",
    "speak_plainly",
    "training_workflow",
    "unlock_output",
    "write_classes",
    "write_json",
]
