"""Fitted solvers in ComfyUI: this file in ComfyUI/custom_nodes, and the exported .json files beside it.

The node "Fitted solver" gives a SAMPLER and its SIGMAS, both for SamplerCustom. `sample_fitted` is called as the
samplers of k-diffusion are. The file needs torch and tqdm, and ComfyUI where its node is used.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import trange

SOLVER: dict[str, Any] = {}
"""x_{k+1} = a_k x_k + sum_j c_kj D_{k-j} + shift_k on `sigmas`, D the denoiser's outputs."""


@torch.no_grad()
def sample_fitted(
    model: Any,
    x: Any,
    sigmas: Any,
    extra_args: Any = None,
    callback: Any = None,
    disable: Any = None,
    solver: Any = None,
) -> Any:
    """Samples from states at sigmas[0], by model(x, sigma, **extra_args) -> x0; `sigmas` are the solver's own.

    A beginning of them will do (SplitSigmas' high_sigmas); the rest alone will not, without the outputs before it.
    """
    solver = SOLVER if solver is None else solver
    own, steps = solver["sigmas"], len(sigmas) - 1
    asked = [float(sigma) for sigma in sigmas]
    if steps >= len(own) or any(abs(a - b) > 1e-4 * b for a, b in zip(asked, own)):  # noqa: B905
        raise ValueError(f"a fitted solver runs on its own noise levels, {own}; it was given {asked}.")
    outputs: list[Any] = []  # of the denoiser, the latest first
    for k in trange(steps, disable=disable):
        outputs.insert(0, model(x, own[k] * x.new_ones([x.shape[0]]), **(extra_args or {})))
        if callback is not None:
            callback({"x": x, "i": k, "sigma": sigmas[k], "sigma_hat": sigmas[k], "denoised": outputs[0]})
        x = solver["a"][k] * x + x.new_tensor(solver["shift"][k])
        for weight, output in zip(solver["c"][k], outputs):  # noqa: B905
            x = x + weight * output
        del outputs[len(solver["c"][k]) - 1 :]
    return x


# ---- the node of ComfyUI ----

FOLDER = Path(__file__).parent
KIND = "codesign_opt.fitted_solver"


def found() -> list[str]:
    """Names of the solvers' files beside this one."""
    names = []
    for path in sorted(FOLDER.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("kind") == KIND:
            names.append(path.name)
    return names


class FittedSolver:
    """A fitted solver by its file: SAMPLER and SIGMAS."""

    RETURN_TYPES = ("SAMPLER", "SIGMAS")
    FUNCTION = "read"
    CATEGORY = "sampling/custom_sampling/samplers"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """One choice among the files."""
        return {"required": {"solver": (found(),)}}

    @classmethod
    def IS_CHANGED(cls, solver: str) -> int:
        """Read again what was written again."""
        return (FOLDER / solver).stat().st_mtime_ns

    def read(self, solver: str) -> tuple[Any, Any]:
        """The sampler and its noise levels."""
        import comfy.samplers

        record = json.loads((FOLDER / solver).read_text(encoding="utf-8"))
        return comfy.samplers.KSAMPLER(sample_fitted, {"solver": record}), torch.tensor(record["sigmas"])


NODE_CLASS_MAPPINGS = {"CodesignFittedSolver": FittedSolver}
NODE_DISPLAY_NAME_MAPPINGS = {"CodesignFittedSolver": "Fitted solver"}
