"""What the data ask for: figures of a training split, and the settings that follow from them."""

from topolora_monai.planning.files import given_scale, plan_text, read_plan, write_plan
from topolora_monai.planning.fingerprint import ClassFigures, Fingerprint, fingerprint
from topolora_monai.planning.plan import Plan, fit_plan, plan
from topolora_monai.planning.run import RunPlan, check_plans, check_sampling

__all__ = [
    "ClassFigures",
    "Fingerprint",
    "Plan",
    "RunPlan",
    "check_plans",
    "check_sampling",
    "fingerprint",
    "fit_plan",
    "given_scale",
    "plan",
    "plan_text",
    "read_plan",
    "write_plan",
]
