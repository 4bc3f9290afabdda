"""Time and memory of terms on centrelines, forward and backward: MONAI's soft clDice against ours on the same tensors.

    python scripts/bench/losses.py --size 1024 --iterations 10

"skeleton given" and "given" are told the target's exact skeleton, as in training, where the data pipeline computes it;
"topology skeleton" is our clDice with the topology-preserving one. The prediction is noisy, at its worst for the
component graph. Each variant runs in a process of its own, in turns; the table gives the median time of warm steps,
the peak resident memory of the first step above what the process held before it, the ratios, and what it holds above
that after all steps. Where no skeleton is given both soft clDice losses give the same value.
"""

import argparse
import json
import statistics
import time

from turns import compare

TERMS = {
    "ours": "cldice",
    "ours, skeleton given": "cldice",
    "topology skeleton": "cldice",
    "Skeleton Recall": "skeleton_recall",
    "Recall, given": "skeleton_recall",
    "clCE, given": "clce",
    "cbDice, given": "cbdice",
    "boundary Dice": "boundary_dice",
    "component graph": "component_graph",
}
VARIANTS = ("MONAI", *TERMS)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10, help="scales of the soft skeleton")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a process, after the first")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each variant")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def vessels(arguments: argparse.Namespace):
    """Wavy lines of several widths, shape (B, 1, size, size)."""
    import torch

    rows = torch.arange(arguments.size).view(-1, 1).float()
    columns = torch.arange(arguments.size).view(1, -1).float()
    lines = [
        ((rows + 20 * torch.sin(columns / (30 + 5 * image)) + 7 * image) % 64 < 2 + rows // 128).float()
        for image in range(arguments.batch_size)
    ]
    return torch.stack(lines)[:, None]


def resident_bytes() -> int:
    """Memory of this process now."""
    import psutil

    return psutil.Process().memory_info().rss


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run one variant in this process."""
    import resource

    import torch
    from monai.losses import SoftclDiceLoss

    from topolora_monai.losses import TopologyLoss
    from topolora_monai.transforms import ExactSkeletond

    torch.manual_seed(0)
    target = vessels(arguments)
    logits = (4 * target - 2 + torch.randn(target.shape)).requires_grad_()
    exact = {}
    if arguments.variant == "MONAI":
        theirs = SoftclDiceLoss(iter_=arguments.iterations - 1, sigmoid=True, smooth=1e-12)

        def loss():
            return theirs(input=logits, target=target)
    else:
        method = "topology_preserving" if "topology" in arguments.variant else "soft"
        ours = TopologyLoss({TERMS[arguments.variant]: 1.0}, iterations=arguments.iterations, skeleton=method)
        if "given" in arguments.variant:
            exact["skeleton"] = torch.stack(
                [ExactSkeletond("label")({"label": mask})["label_skeleton"] for mask in target]
            )

        def loss():
            return ours(logits, target, **exact)

    before = resident_bytes()
    seconds, peak = [], 0
    for _ in range(1 + arguments.steps):
        start = time.perf_counter()
        value = loss()
        value.backward()
        seconds.append(time.perf_counter() - start)
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_bytes": peak,
        "held_bytes": resident_bytes() - before,
        "loss": value.item(),
        "gradient_norm": logits.grad.norm().item(),
    }


def main() -> None:
    arguments = parse_arguments()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    shape = (arguments.batch_size, 1, arguments.size, arguments.size)
    compare(arguments, VARIANTS, f"terms on {shape}, {arguments.iterations} iterations, forward + backward")


if __name__ == "__main__":
    main()
