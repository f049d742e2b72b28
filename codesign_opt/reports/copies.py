"""A plan's settings as they are typed elsewhere: every export's form, ready to copy."""

from __future__ import annotations

from ..basics.wording import percent
from ..exports import export, targets
from ..exports.training import export_training, training_targets
from ..results.level_table import planned_training
from ..results.plan import Plan
from .elements import columns, copy_block, details, paragraph

__all__ = ["copies"]

_LONG = 20_000  # letters: a longer text is a file's, not a page's


def copies(plan: Plan) -> tuple[list[str], list[str]]:
    """Blocks to copy: what most people type, and the forms of all other programs."""
    first, others = [], []
    if planned_training(plan) and plan.new_examples.any():
        normal = plan.fits.get("lognormal")
        if normal:
            text = f"P_mean={normal['P_mean']:.6g}, P_std={normal['P_std']:.6g}"
            said = "the log-normal density that wastes least of the plan"
            if "loss" in normal:
                said += f": {percent(max(normal['loss'], 0.0))} more score error"
            first.append(copy_block("Training density", text, said))
        others.append(details("The training density in a trainer's settings", *_trainers(plan)))
    if plan.sigmas is not None:
        if plan.solver is None:
            levels = ", ".join(f"{sigma:.9g}" for sigma in plan.sigmas)
            end = "; the last step ends at 0" if plan.terminal == "denoise" else ""
            first.append(copy_block("Noise levels", f"sigmas = [{levels}]", f"from noise to data{end}"))
        others.insert(0, details("The noise levels in a program's form", *_programs(plan)))
    return [columns(*first)], others


def _programs(plan: Plan) -> list[str]:
    blocks = []
    for name in targets():
        if name == "diffusers":
            text = 'import codesign_opt as co\n\nplan = co.Plan.load("plan.json")\nfound = plan.export("diffusers", '
            text += "pipe.scheduler)\nfound.apply(pipe.scheduler)\nprint(found)"
            blocks.append(copy_block("Levels for diffusers", text, "it depends on the scheduler in use"))
            continue
        try:
            if name == "k-diffusion" and plan.solver is None:  # its tensor's numbers, without torch
                levels = ", ".join(map(repr, export(plan, "comfyui")))
                text = f"sigmas = torch.tensor([{levels}])"
            else:
                found = export(plan, name)
                text = f"[{', '.join(map(repr, found))}]" if isinstance(found, list) else str(found)
        except (ValueError, TypeError, ImportError) as error:  # one that needs an option, or takes other steps
            blocks.append(paragraph(f"{name}: {error}", "note"))
            continue
        blocks.append(_block(f"Levels for {name}", text))
    if plan.solver is None and plan.times is not None:
        times = ", ".join(f"{t:.9g}" for t in plan.times)
        blocks.append(copy_block("Levels as flow times", f"[{times}]", "t = sigma / (1 + sigma), noise at 1"))
    return blocks


def _trainers(plan: Plan) -> list[str]:
    blocks = []
    for name in training_targets():
        try:
            found = export_training(plan, name)
        except (ValueError, TypeError, ImportError) as error:
            blocks.append(paragraph(f"{name}: {error}", "note"))
            continue
        cost = str(found).removeprefix(found.text).strip().splitlines()
        note = next((line for line in cost if line.startswith("costs ")), "")
        blocks.append(_block(f"Training with {name}", found.text, note))
    return blocks


def _block(title: str, text: str, note: str = "") -> str:
    if len(text) > _LONG:
        return paragraph(f"{title}: {len(text):,} letters, which are left to a file (codesign-opt export)", "note")
    return copy_block(title, text, note)
