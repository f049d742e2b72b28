"""How the pipelines of diffusers call each class of networks: one row a family, read from their own code (0.42).

A row says what the network is told of the scheduler's time, where its conditions go, and what its answer is. Classes
of diffusers without a row are refused by name; networks of one's own are called as `model(x, t, **condition)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ...basics.checks import boolean, choice, entries, instance, integer, number, numbers

__all__ = ["CLOCKS", "FAMILIES", "REFUSED", "ModelFamily", "family_of"]

# what a network is told at time t of a scheduler whose times end at N
CLOCKS = {"timestep": "t", "unit": "t / N", "reversed": "1 - t / N"}


@dataclass(frozen=True)
class ModelFamily:
    """How a class of networks is called, and what its answers are.

    Args:
        classes: names of the classes; subclasses are called alike.
        clock: "timestep" for the scheduler's own time t, "unit" for t / N, "reversed" for 1 - t / N, where N is
            the scheduler's time of pure noise.
        sign: -1 where the pipeline negates the answer before the scheduler's step.
        time: name of the argument that takes the time; `also` the names of others that take it too.
        offset: added to the time.
        scaled_by: entry of the network's config that multiplies the time.
        inverted: whether it was trained with a scheduler of `invert_sigmas=True`.
        sigma_times: whether it is told the time of EDM schedulers as it is, although its clock is not "timestep".
        form: "batch" for a tensor of states; "list" for a list of states with an axis of frames; "text first" for
            tokens of text, of the length of `encoder_hidden_states`, before those of the state; "last tokens" where
            the answer has those of text too.
        channels: axis that `beside` is joined to.
        frame_times: axis of frames where every frame is told its time; None for one time a state.
        batch_axes: conditions whose batch is not the first axis.
        per_frame: conditions that are repeated for every frame.
        needs: names of schedulers that it is known with; empty for all.
        note: what else a caller must know, for the table in docs/networks.md.

    >>> row = family_of("FluxTransformer2DModel")
    >>> row.clock, row.told(250.0, 1000.0), row.sign
    ('unit', 0.25, 1.0)
    """

    classes: tuple[str, ...] = ()
    clock: str = "timestep"
    sign: float = 1.0
    time: str = "timestep"
    also: tuple[str, ...] = ()
    offset: float = 0.0
    scaled_by: str = ""
    inverted: bool = False
    sigma_times: bool = False
    form: str = "batch"
    channels: int = 1
    frame_times: int | None = None
    batch_axes: Mapping[str, int] = field(default_factory=dict)
    per_frame: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        choice(self.clock, "ModelFamily.clock", CLOCKS)
        choice(self.form, "ModelFamily.form", ("batch", "list", "text first", "last tokens"))
        if abs(number(self.sign, "ModelFamily.sign")) != 1:
            raise ValueError(f"ModelFamily.sign is {self.sign:g}; it is 1, or -1 where the answer is the opposite.")
        put, name = object.__setattr__, "ModelFamily"
        for each in ("classes", "also", "per_frame", "needs"):
            words = entries(getattr(self, each), f"{name}.{each}")
            put(self, each, tuple(instance(word, str, f"{name}.{each}") for word in words))
        for each in ("time", "scaled_by", "note"):
            instance(getattr(self, each), str, f"{name}.{each}")
        for each in ("inverted", "sigma_times"):
            boolean(getattr(self, each), f"{name}.{each}")
        put(self, "offset", number(self.offset, f"{name}.offset"))
        put(self, "channels", integer(self.channels, f"{name}.channels"))
        if self.frame_times is not None:
            put(self, "frame_times", integer(self.frame_times, f"{name}.frame_times"))
        instance(self.batch_axes, Mapping, f"{name}.batch_axes")

    def told(self, t: Any, top: float) -> Any:
        """What the network is told at time t of a scheduler whose time of pure noise is `top`."""
        if isinstance(t, int):
            t = number(t, "ModelFamily.told: t")
        elif not (isinstance(t, float) or torch.is_tensor(t)):
            t = numbers(t, "ModelFamily.told: t")
        top = number(top, "ModelFamily.told: top", positive=True)
        if self.clock == "unit":
            return t / top + self.offset
        if self.clock == "reversed":
            return 1 - t / top + self.offset
        return t + self.offset

    @property
    def known(self) -> bool:
        """Whether it is a row of the table, and no network of one's own."""
        return bool(self.classes)


_EDIT = "edits join the image's tokens by `beside`"
_BACKWARDS = "a scheduler with invert_sigmas=True: times run backwards, the velocity is x0 - z"
_VIDEO = "image-to-video joins the image's latents by `beside`"

FAMILIES = (
    ModelFamily(
        ("UNet1DModel", "UNet2DModel", "UNet2DConditionModel", "UNet3DConditionModel", "I2VGenXLUNet",
         "Kandinsky3UNet"),
        note="learned variance: the first C of 2 C channels; inpainting joins by `beside`",
    ),
    ModelFamily(("UNetControlNetXSModel",)),
    ModelFamily(("UNetMotionModel",), per_frame=("encoder_hidden_states",), note="text once, for all frames"),
    ModelFamily(("UNetSpatioTemporalConditionModel",), channels=2, note=_VIDEO),
    ModelFamily(("DreamLiteUNetModel",), channels=-1, note="the image's latents, or zeros, by `beside`"),
    ModelFamily(("PriorTransformer",), note="states are image embeddings (N, D)"),
    ModelFamily(
        ("DiTTransformer2DModel", "PixArtTransformer2DModel", "HunyuanDiT2DModel", "LatteTransformer3DModel"),
        note="learned variance: the first C of 2 C channels",
    ),
    ModelFamily(
        ("AllegroTransformer3DModel", "CogView3PlusTransformer2DModel", "CogView4Transformer2DModel",
         "EasyAnimateTransformer3DModel", "ErnieImageTransformer2DModel", "BriaTransformer2DModel",
         "BriaFiboTransformer2DModel", "SD3Transformer2DModel", "SanaVideoTransformer3DModel"),
    ),
    ModelFamily(("CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel"), channels=2, note=_VIDEO),
    ModelFamily(("SanaTransformer2DModel",), scaled_by="timestep_scale",
                note="with SCMScheduler: t / (1 + t) of tan, data not times sigma_data"),
    ModelFamily(("LTXVideoTransformer3DModel",), channels=-1, note="states are packed tokens (N, L, C)"),
    ModelFamily(("MochiTransformer3DModel",), inverted=True, note=_BACKWARDS),
    ModelFamily(("OmniGenTransformer2DModel", "LongCatAudioDiTTransformer", "MiniMaxMusic3Transformer1DModel"),
                clock="unit", inverted=True, note=_BACKWARDS),
    ModelFamily(
        ("HunyuanVideoTransformer3DModel", "HunyuanVideoFramepackTransformer3DModel",
         "HunyuanVideo15Transformer3DModel", "HunyuanImageTransformer2DModel"),
        note=f"guidance is given times 1000; {_VIDEO}",
    ),
    ModelFamily(
        ("WanTransformer3DModel", "WanVACETransformer3DModel", "WanAnimateTransformer3DModel",
         "ChronoEditTransformer3DModel", "SkyReelsV2Transformer3DModel", "HeliosTransformer3DModel",
         "MotifVideoTransformer3DModel", "JoyImageEditTransformer3DModel"),
        note=_VIDEO,
    ),
    ModelFamily(("JoyImageEditPlusTransformer3DModel",), note="states are patches (N, L, C, 1, 2, 2)"),
    ModelFamily(("Kandinsky5Transformer3DModel",), channels=-1, note="channels last (N, F, H, W, C)"),
    ModelFamily(("AnyFlowTransformer3DModel",), channels=2, also=("r_timestep",), frame_times=1,
                note="the flow map is asked for its instantaneous velocity, r = t"),
    ModelFamily(("HiDreamImageTransformer2DModel",), sign=-1.0, time="timesteps",
                batch_axes={"encoder_hidden_states_llama3": 1}),
    ModelFamily(("GlmImageTransformer2DModel",), offset=-1.0),
    ModelFamily(("StableAudioDiTModel",), note="CosineDPMSolverMultistepScheduler: its preconditioning"),
    ModelFamily(
        ("FluxTransformer2DModel", "Flux2Transformer2DModel", "Flux3Transformer2DModel", "ChromaTransformer2DModel",
         "LongCatImageTransformer2DModel", "OvisImageTransformer2DModel", "QwenImageTransformer2DModel",
         "Krea2Transformer2DModel"),
        clock="unit", note=f"states are packed tokens (N, L, C); {_EDIT}",
    ),
    ModelFamily(("QwenImage21Transformer2DModel",), clock="unit", form="last tokens",
                note=f"states are packed tokens (N, L, C); {_EDIT}"),
    ModelFamily(("AuraFlowTransformer2DModel", "BriaFibo2Transformer2DModel", "PRXTransformer2DModel"), clock="unit"),
    ModelFamily(("StableAudio3DiTModel",), clock="unit"),
    ModelFamily(("AceStepTransformer1DModel",), clock="unit", also=("timestep_r",)),
    ModelFamily(("CosmosTransformer3DModel",), clock="unit", sigma_times=True,
                note="EDM schedulers: log(sigma) / 4 as it is; others: the flow time"),
    ModelFamily(("NucleusMoEImageTransformer2DModel",), clock="unit", sign=-1.0,
                note="states are packed tokens (N, L, C)"),
    ModelFamily(("LuminaNextDiT2DModel", "Lumina2Transformer2DModel"), clock="reversed", sign=-1.0),
    ModelFamily(("ZImageTransformer2DModel",), clock="reversed", sign=-1.0, time="t", form="list"),
    ModelFamily(("Ideogram4Transformer2DModel",), clock="reversed", sign=-1.0, form="text first"),
    ModelFamily(("StableCascadeUNet",), time="timestep_ratio", needs=("DDPMWuerstchenScheduler",)),
)  # fmt: skip

_JOINT = "denoises video or an image together with sound or text, each with a time of its own"
_PART = "is part of a network, or steers another one"
_CACHE = "is called frame by frame, with caches of what it was asked before"
_DISCRETE = "works on tokens, which have no noise level sigma"

# classes with a time that are no denoiser of one state, with the reason
REFUSED = {
    **dict.fromkeys(("LTX2VideoTransformer3DModel", "Kandinsky6Transformer3DModel", "MiniMaxH3Transformer3DModel",
                     "Cosmos3OmniTransformer"), _JOINT),
    "RFD4ProteinaTransformer": "denoises a backbone and latents together, each with a time of its own",
    **dict.fromkeys(("ControlNetModel", "ControlNetUnionModel", "CosmosControlNetModel", "FluxControlNetModel",
                     "FluxMultiControlNetModel", "HunyuanDiT2DControlNetModel", "HunyuanDiT2DMultiControlNetModel",
                     "MultiControlNetModel", "QwenImageControlNetModel", "QwenImageMultiControlNetModel",
                     "SD3ControlNetModel", "SD3MultiControlNetModel", "SanaControlNetModel", "SparseControlNetModel",
                     "ZImageControlNetModel", "ControlNetXSAdapter", "DreamLiteTransformer2DModel",
                     "Transformer2DModel", "TransformerTemporalModel", "MotionAdapter", "T5FilmDecoder",
                     "LTX2VideoDiffusionDecoderModel"), _PART),
    **dict.fromkeys(("AnyFlowFARTransformer3DModel", "WanAnimate2Transformer3DModel",
                     "SanaWMLTX2RefinerTransformer3DModel"), _CACHE),
    "SanaWMTransformer3DModel": "is told another time at every frame, the first of which is kept",
    "Kandinsky6SRTransformer3DModel": "starts from tiles of a smaller image, not from noise",
    "UVit2DModel": _DISCRETE,
    "MiniMaxMusic3RVQDepthDecoder": _DISCRETE,
}  # fmt: skip

_BY_NAME = {name: row for row in FAMILIES for name in row.classes}


def family_of(name: str) -> ModelFamily | None:
    """The row of a class by its name; None where there is none."""
    return _BY_NAME.get(name)


def own_family(model: Any) -> ModelFamily:
    """How a network of one's own is called: the time by its usual names, else as the second argument.

    >>> own_family(lambda x, guidance, timestep: x).time, own_family(lambda x, t: x).time
    ('timestep', '')
    """
    try:
        names = list(inspect.signature(getattr(model, "forward", model)).parameters)
    except (TypeError, ValueError):
        return ModelFamily(time="")
    found = [name for name in ("timestep", "timesteps", "timestep_ratio") if name in names]
    return ModelFamily(time=found[0] if found else "")
