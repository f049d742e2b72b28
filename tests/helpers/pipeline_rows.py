"""Which pipelines of diffusers run each class of networks, what they are built from, and what their calls take."""

from types import SimpleNamespace

import torch

from tests.helpers.run_pipelines import Run
from tests.helpers.tiny_networks import ids, r

EULER, DDIM, COG = "EulerDiscreteScheduler", "DDIMScheduler", "CogVideoXDDIMScheduler"
PLAIN, V = {"clip_sample": False}, {"prediction_type": "v_prediction"}
TABLE = {"scheduler": DDIM, "settings": PLAIN}
BACKWARDS = {"invert_sigmas": True}
SECONDS = {"num_train_timesteps": 1}
ONES, TRUE = torch.ones(1, 6, dtype=torch.long), torch.ones(1, 6, dtype=torch.bool)
SVD = {**V, "timestep_type": "continuous", "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0}
ONE_STAGE = {"stages": 1, "stage_range": [0, 1]}


class Part(SimpleNamespace):
    """A component of which a loop reads a few entries."""

    __module__ = __name__
    dtype = torch.float32


class Silence(Part):
    """An encoder of music that has nothing to say."""

    silence_latent = torch.zeros(1, 750, 8)

    def __call__(self, **named):
        return r(1, 6, 32), None


class Nothing(torch.nn.Module):
    """A second network, whose answers do not count."""

    dtype, device = torch.float32, torch.device("cpu")

    def forward(self, hidden_states, **named):
        return (torch.zeros_like(hidden_states),)


class OmniGenInputs:
    """A processor whose prompts with and without guidance are alike."""

    max_image_size = 1024

    def __init__(self, *given, **named): ...

    def __call__(self, *given, **named):
        places = torch.arange(21).repeat(2, 1)
        mask, texts = torch.ones(2, 21, 21), torch.tensor([[1, 2, 3, 4]] * 2)
        return {"input_ids": texts, "attention_mask": mask, "position_ids": places, "input_pixel_values": [],
                "input_image_sizes": {}}  # fmt: skip


def vae(**entries):
    """The entries of an autoencoder that loops look at: sixty-four pixels are eight latents."""
    usual = {"block_out_channels": (1,) * 4, "latent_channels": 4, "z_dim": 4, "scale_factor_temporal": 4,
             "scale_factor_spatial": 8, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "shift_factor": 0.0,
             "scaling_factor": 1.0, "force_upcast": False}  # fmt: skip
    return Part(config=SimpleNamespace(**{**usual, **entries}), temporal_compression_ratio=4,
                spatial_compression_ratio=8, temperal_downsample=[True, True, False])  # fmt: skip


def always(*values):
    """A method that answers the same whatever it is asked."""
    return lambda *given, **named: values[0] if len(values) == 1 else values


def text(length, width, /, **more):
    return {"prompt_embeds": r(1, length, width), **more}


def guider():
    from diffusers.guiders import ClassifierFreeGuidance

    return ClassifierFreeGuidance(guidance_scale=1.0)


def black(size):
    from PIL import Image

    return Image.new("RGB", (size, size))


def frames(state):
    """(N F, C, H, W) of a scheduler to (N, C, F, H, W) of its network, for one state of two frames."""
    return state.reshape(1, 2, *state.shape[1:]).transpose(1, 2)


def flux3(block, parts, timesteps):
    from diffusers.modular_pipelines.modular_pipeline import PipelineState

    state = PipelineState()
    for key, value in {"timesteps": timesteps, "num_inference_steps": 3, "latents": r(1, 16, 4)}.items():
        state.set(key, value)
    for key, value in {**text(6, 32), "txt_ids": ids(6, 4), "img_ids": ids(16, 4)}.items():
        state.set(key, value, "denoiser_input_fields")
    block(parts, state)


def music3(block, parts, timesteps):
    state = SimpleNamespace(latents=r(1, 8, 24), condition=r(1, 24, 16), timesteps=timesteps, overlap=0,
                            num_inference_steps=3, progress_bar=Part(update=always(None)))  # fmt: skip
    block(parts, state, 0)


def run(path, name, /, call=None, **more):
    return Run(f"pipelines/{path}", name, call or {}, **more)


def guarded():
    return {"safety_checker": Part(to=always(None), check_text_safety=always(True))}


SD, LEARNED = "stable_diffusion/pipeline_stable_diffusion", {"variance_type": "learned_range"}
BINS = {"use_resolution_binning": False}
ATTENDED = {"prompt_attention_mask": torch.ones(1, 6)}
COND = {"encode_image": always(r(1, 4, 16))}

# class of the networks: the pipelines
UNETS = {
    "UNet1DModel": [
        run("deprecated/dance_diffusion/pipeline_dance_diffusion", "DanceDiffusionPipeline", {"audio_length_in_s": 1.0},
            scheduler="IPNDMScheduler", part="unet", network={"sample_rate": 64}),
    ],
    "UNet2DModel": [
        run("ddpm/pipeline_ddpm", "DDPMPipeline", scheduler="DDPMScheduler", settings=PLAIN, part="unet",
            network={"out_channels": 3}),
        run("consistency_models/pipeline_consistency_models", "ConsistencyModelPipeline", part="unet",
            scheduler="CMStochasticIterativeScheduler", settings={"clip_denoised": False}, network={"out_channels": 3}),
    ],
    "UNet2DConditionModel": [
        run(SD, "StableDiffusionPipeline", text(4, 8), **TABLE, part="unet"),
        run(SD, "StableDiffusionPipeline", text(4, 8), scheduler=EULER, settings=V, part="unet"),
        run("deepfloyd_if/pipeline_if", "IFPipeline", text(4, 8, height=8, width=8), scheduler="DDPMScheduler",
            settings={**PLAIN, **LEARNED}, part="unet", network={"in_channels": 3, "out_channels": 6}),
    ],
    "UNet3DConditionModel": [
        run("deprecated/text_to_video_synthesis/pipeline_text_to_video_synth", "TextToVideoSDPipeline",
            text(4, 8, num_frames=2), **TABLE, part="unet", view=frames),
    ],
    "UNetMotionModel": [
        run("animatediff/pipeline_animatediff", "AnimateDiffPipeline", text(4, 16, num_frames=2), **TABLE, part="unet"),
    ],
    "UNetSpatioTemporalConditionModel": [
        run("stable_video_diffusion/pipeline_stable_video_diffusion", "StableVideoDiffusionPipeline",
            {"image": torch.zeros(1, 3, 64, 64), "num_frames": 2, "max_guidance_scale": 1.0}, scheduler=EULER,
            settings=SVD, part="unet", parts={"vae": vae()},
            methods={"_encode_image": always(r(1, 1, 32)), "_encode_vae_image": always(r(1, 4, 8, 8))}),
    ],
    "UNetControlNetXSModel": [
        run("deprecated/controlnet_xs/pipeline_controlnet_xs", "StableDiffusionControlNetXSPipeline",
            text(4, 8, image=r(1, 3, 32, 32)), **TABLE, part="unet", parts={"vae": vae(block_out_channels=(1, 1))},
            methods={"check_inputs": always(None), "prepare_image": always(r(1, 3, 32, 32))}),
    ],
    "I2VGenXLUNet": [
        run("deprecated/i2vgen_xl/pipeline_i2vgen_xl", "I2VGenXLPipeline",
            text(4, 32, num_frames=2, height=128, width=128, image=black(128)), **TABLE, part="unet", view=frames,
            parts={"feature_extractor": Part(crop_size={"width": 8, "height": 8})},
            methods={"_encode_image": always(r(1, 1, 32)), "prepare_image_latents": always(r(1, 4, 2, 16, 16))}),
    ],
    "DreamLiteUNetModel": [
        run("dreamlite/pipeline_dreamlite_mobile", "DreamLiteMobilePipeline", {"prompt": "x"}, part="unet",
            parts={"text_encoder": Part(), "vae": vae()},
            methods={"encode_prompt": always(r(1, 6, 8), torch.ones(1, 6))}),
    ],
    "StableCascadeUNet": [
        run("stable_cascade/pipeline_stable_cascade", "StableCascadeDecoderPipeline",
            text(4, 16, prompt_embeds_pooled=r(1, 1, 16), image_embeddings=r(1, 16, 2, 2), guidance_scale=0.0),
            scheduler="DDPMWuerstchenScheduler", part="decoder", parts={"latent_dim_scale": 4.0}),
        run("stable_cascade/pipeline_stable_cascade_prior", "StableCascadePriorPipeline",
            text(4, 16, prompt_embeds_pooled=r(1, 1, 16), guidance_scale=0.0, height=340, width=340),
            scheduler="DDPMWuerstchenScheduler", part="prior", parts={"text_encoder": Part()},
            network={"clip_text_in_channels": 16, "clip_image_in_channels": 8},
            methods={"encode_prompt": always(r(1, 4, 16), r(1, 1, 16), None, None)}),
    ],
    "Kandinsky3UNet": [
        run("kandinsky3/pipeline_kandinsky3", "Kandinsky3Pipeline", text(6, 8, attention_mask=torch.ones(1, 6)),
            scheduler="DDPMScheduler", settings=PLAIN, part="unet"),
    ],
    "PriorTransformer": [
        run("kandinsky/pipeline_kandinsky_prior", "KandinskyPriorPipeline", {"prompt": "x"}, part="prior",
            scheduler="UnCLIPScheduler", settings={**PLAIN, "prediction_type": "sample"},
            methods={"_encode_prompt": always(r(1, 8), r(1, 7, 8), torch.ones(1, 7, dtype=torch.bool))}),
    ],
}  # fmt: skip

IMAGES = {
    "DiTTransformer2DModel": [run("dit/pipeline_dit", "DiTPipeline", {"class_labels": [3]}, **TABLE)],
    "PixArtTransformer2DModel": [
        run("pixart_alpha/pipeline_pixart_alpha", "PixArtAlphaPipeline", text(6, 8, **ATTENDED, **BINS), **TABLE),
    ],
    "HunyuanDiT2DModel": [
        run("hunyuandit/pipeline_hunyuandit", "HunyuanDiTPipeline",
            text(4, 8, prompt_embeds_2=r(1, 4, 8), prompt_attention_mask=torch.ones(1, 4),
                 prompt_attention_mask_2=torch.ones(1, 4), **BINS), **TABLE),
    ],
    "CogView3PlusTransformer2DModel": [
        run("cogview3/pipeline_cogview3plus", "CogView3PlusPipeline", text(6, 8), scheduler=COG,
            settings={**PLAIN, **V}),
    ],
    "CogView4Transformer2DModel": [run("cogview4/pipeline_cogview4", "CogView4Pipeline", text(6, 8))],
    "ErnieImageTransformer2DModel": [
        run("ernie_image/pipeline_ernie_image", "ErnieImagePipeline", {"prompt_embeds": [r(6, 16)]}),
    ],
    "BriaTransformer2DModel": [run("bria/pipeline_bria", "BriaPipeline", text(6, 32), parts={"vae": vae()})],
    "BriaFiboTransformer2DModel": [
        run("bria_fibo/pipeline_bria_fibo", "BriaFiboPipeline", {"prompt": "x"}, parts={"vae": Part()},
            methods={"encode_prompt": always(r(1, 6, 64), None, ids(6), ONES, None, [r(1, 6, 32)] * 2, None)}),
    ],
    "BriaFibo2Transformer2DModel": [
        run("bria_fibo2/pipeline_bria_fibo2", "BriaFibo2Pipeline",
            {"prompt_embeds": r(1, 2, 6, 8), "prompt_embeds_mask": ONES}),
    ],
    "SD3Transformer2DModel": [
        run("stable_diffusion_3/pipeline_stable_diffusion_3", "StableDiffusion3Pipeline",
            text(6, 32, pooled_prompt_embeds=r(1, 64)), settings={"shift": 3.0}),
    ],
    "SanaTransformer2DModel": [
        run("sana/pipeline_sana", "SanaPipeline", text(6, 8, **ATTENDED, **BINS, height=256, width=256)),
        run("sana/pipeline_sana_sprint", "SanaSprintPipeline",
            text(6, 8, **ATTENDED, **BINS, height=256, width=256, intermediate_timesteps=None),
            scheduler="SCMScheduler", network={"guidance_embeds": True, "guidance_embeds_scale": 0.1}),
    ],
    "OmniGenTransformer2DModel": [
        run("omnigen/pipeline_omnigen", "OmniGenPipeline", {"prompt": "x"}, settings={**BACKWARDS, **SECONDS},
            parts={"vae": vae()}, globals={"OmniGenMultiModalProcessor": OmniGenInputs},
            methods={"encode_input_images": always([])}),
    ],
    "HunyuanImageTransformer2DModel": [
        run("hunyuan_image/pipeline_hunyuanimage", "HunyuanImagePipeline",
            text(6, 16, prompt_embeds_mask=ONES, prompt_embeds_2=r(1, 6, 16), prompt_embeds_mask_2=ONES)),
    ],
    "JoyImageEditTransformer3DModel": [
        run("joyimage/pipeline_joyimage_edit", "JoyImageEditPipeline", text(6, 16, prompt_embeds_mask=ONES)),
    ],
    "JoyImageEditPlusTransformer3DModel": [
        run("joyimage/pipeline_joyimage_edit_plus", "JoyImageEditPlusPipeline",
            text(6, 16, prompt_embeds_mask=ONES, prompt="x"),
            methods={"check_inputs": always(None),
                     "prepare_latents": always(r(1, 2, 16, 1, 2, 2), torch.ones(1, 2).bool(), [[(1, 1, 2)]])}),
    ],
    "HiDreamImageTransformer2DModel": [
        run("hidream_image/pipeline_hidream_image", "HiDreamImagePipeline",
            {"prompt_embeds_t5": r(1, 6, 8), "prompt_embeds_llama3": r(2, 1, 6, 4), "pooled_prompt_embeds": r(1, 8)}),
    ],
    "GlmImageTransformer2DModel": [
        run("glm_image/pipeline_glm_image", "GlmImagePipeline", text(6, 32, prior_token_ids=torch.tensor([[5] * 16]))),
    ],
    "FluxTransformer2DModel": [
        run("flux/pipeline_flux", "FluxPipeline", text(6, 32, pooled_prompt_embeds=r(1, 32))),
    ],
    "Flux2Transformer2DModel": [run("flux2/pipeline_flux2", "Flux2Pipeline", text(6, 32))],
    "Flux3Transformer2DModel": [
        Run("modular_pipelines/flux3/denoise", "Flux3DenoiseStep",
            {"set_timesteps": {"num_inference_steps": 3}, "block": flux3}),
    ],
    "ChromaTransformer2DModel": [run("chroma/pipeline_chroma", "ChromaPipeline", text(6, 32, **ATTENDED))],
    "LongCatImageTransformer2DModel": [
        run("longcat_image/pipeline_longcat_image", "LongCatImagePipeline",
            {"prompt": "x", "enable_prompt_rewrite": False}, network={"in_channels": 64},
            methods={"encode_prompt": always(r(1, 6, 32), ids(6))}),
    ],
    "OvisImageTransformer2DModel": [run("ovis_image/pipeline_ovis_image", "OvisImagePipeline", text(6, 32))],
    "QwenImageTransformer2DModel": [
        run("qwenimage/pipeline_qwenimage", "QwenImagePipeline", text(6, 16, prompt_embeds_mask=ONES)),
    ],
    "QwenImage21Transformer2DModel": [
        run("qwenimage21/pipeline_qwenimage21", "QwenImage21Pipeline", text(6, 16, use_kv_cache=False),
            parts={"processor": Part(apply_chat_template=always([[1]]), tokenizer=Part(encode=always([1])))},
            methods={"encode_prompt": always(r(1, 6, 16), None, torch.zeros(1, 6).bool())}),
    ],
    "Krea2Transformer2DModel": [
        run("krea2/pipeline_krea2", "Krea2Pipeline",
            {"prompt_embeds": r(1, 6, 2, 16), "prompt_embeds_mask": TRUE, "guidance_scale": 0.0}),
    ],
    "AuraFlowTransformer2DModel": [run("aura_flow/pipeline_aura_flow", "AuraFlowPipeline", text(6, 32, **ATTENDED))],
    "PRXTransformer2DModel": [
        run("prx/pipeline_prx", "PRXPipeline", text(6, 16, prompt_attention_mask=TRUE, **BINS)),
    ],
    "NucleusMoEImageTransformer2DModel": [
        run("nucleusmoe_image/pipeline_nucleusmoe_image", "NucleusMoEImagePipeline",
            text(6, 16, prompt_embeds_mask=ONES)),
    ],
    "LuminaNextDiT2DModel": [run("lumina/pipeline_lumina", "LuminaPipeline", text(6, 32, **ATTENDED))],
    "Lumina2Transformer2DModel": [
        run("lumina2/pipeline_lumina2", "Lumina2Pipeline", text(6, 32, prompt_attention_mask=TRUE)),
    ],
    "ZImageTransformer2DModel": [
        run("z_image/pipeline_z_image", "ZImagePipeline", {"prompt_embeds": [r(16, 16)], "guidance_scale": 0.0}),
    ],
    "Ideogram4Transformer2DModel": [
        run("ideogram4/pipeline_ideogram4", "Ideogram4Pipeline",
            {"prompt": "x", "max_sequence_length": 3, "guidance_schedule": None}, padded=True,
            parts={"vae": vae(), "unconditional_transformer": Nothing(), "prompt_enhancer_head": None},
            methods={"encode_prompt": always(r(1, 19, 12), torch.arange(57).reshape(1, 19, 3), torch.ones(1, 19).long(),
                                             torch.tensor([[3] * 3 + [2] * 16]))}),
    ],
}  # fmt: skip

VIDEOS = {
    "LatteTransformer3DModel": [
        run("latte/pipeline_latte", "LattePipeline", text(6, 8, video_length=1, mask_feature=False), **TABLE),
    ],
    "AllegroTransformer3DModel": [
        run("allegro/pipeline_allegro", "AllegroPipeline", text(6, 8, **ATTENDED, num_frames=8), scheduler=EULER,
            network={"attention_head_dim": 24, "cross_attention_dim": 48}),
    ],
    "CogVideoXTransformer3DModel": [
        run("cogvideo/pipeline_cogvideox", "CogVideoXPipeline", text(8, 8, num_frames=1), scheduler=kind,
            settings={**PLAIN, **V}) for kind in (COG, "CogVideoXDPMScheduler")
    ],
    "ConsisIDTransformer3DModel": [
        run("consisid/pipeline_consisid", "ConsisIDPipeline",
            text(8, 8, num_frames=1, image=torch.zeros(1, 3, 64, 64), id_vit_hidden=[r(1, 2, 2)], id_cond=r(1, 2)),
            scheduler=COG, settings={**PLAIN, **V}, network={"in_channels": 8},
            methods={"prepare_latents": always(r(1, 1, 4, 8, 8), r(1, 1, 4, 8, 8))}),
    ],
    "EasyAnimateTransformer3DModel": [
        run("easyanimate/pipeline_easyanimate", "EasyAnimatePipeline", text(6, 16, **ATTENDED, num_frames=5),
            parts={"vae": vae()}),
    ],
    "SanaVideoTransformer3DModel": [
        run("sana_video/pipeline_sana_video", "SanaVideoPipeline", text(6, 16, **ATTENDED, **BINS, frames=5)),
    ],
    "LTXVideoTransformer3DModel": [run("ltx/pipeline_ltx", "LTXPipeline", text(6, 16, **ATTENDED, num_frames=9))],
    "MochiTransformer3DModel": [
        run("mochi/pipeline_mochi", "MochiPipeline", text(6, 16, prompt_attention_mask=TRUE, num_frames=7),
            settings=BACKWARDS),
    ],
    "HunyuanVideoTransformer3DModel": [
        run("hunyuan_video/pipeline_hunyuan_video", "HunyuanVideoPipeline",
            text(6, 16, **ATTENDED, pooled_prompt_embeds=r(1, 8), num_frames=1)),
    ],
    "HunyuanVideoFramepackTransformer3DModel": [
        run("hunyuan_video/pipeline_hunyuan_video_framepack", "HunyuanVideoFramepackPipeline",
            text(6, 16, **ATTENDED, pooled_prompt_embeds=r(1, 8), image=torch.zeros(1, 3, 64, 64), num_frames=9,
                 latent_window_size=3), parts={"vae": vae()}, network={"guidance_embeds": True},
            methods={"encode_image": always(r(1, 6, 16)), "prepare_image_latents": always(r(1, 4, 1, 8, 8))}),
    ],
    "HunyuanVideo15Transformer3DModel": [
        run("hunyuan_video1_5/pipeline_hunyuan_video1_5", "HunyuanVideo15Pipeline",
            text(6, 16, prompt_embeds_mask=ONES, prompt_embeds_2=r(1, 4, 8), prompt_embeds_mask_2=torch.ones(1, 4),
                 num_frames=1, height=32, width=32), parts={"vae": vae(), "guider": guider()}),
    ],
    "WanTransformer3DModel": [run("wan/pipeline_wan", "WanPipeline", text(6, 16, num_frames=5))],
    "SkyReelsV2Transformer3DModel": [
        run("skyreels_v2/pipeline_skyreels_v2", "SkyReelsV2Pipeline", text(6, 16, num_frames=5)),
    ],
    "WanVACETransformer3DModel": [
        run("wan/pipeline_wan_vace", "WanVACEPipeline", text(6, 16, num_frames=5), parts={"vae": vae()},
            methods={"preprocess_conditions": always(None, None, [[]]),
                     "prepare_video_latents": always(r(1, 4, 2, 8, 8)), "prepare_masks": always(r(1, 4, 2, 8, 8))}),
    ],
    "WanAnimateTransformer3DModel": [
        run("wan/pipeline_wan_animate", "WanAnimatePipeline",
            text(6, 16, image=black(64), pose_video=[black(64)] * 5, face_video=[black(16)] * 5,
                 segment_frame_length=5, prev_segment_conditioning_frames=1), parts={"vae": vae()},
            methods={**COND, "prepare_reference_image_latents": always(r(1, 8, 1, 8, 8)),
                     "prepare_pose_latents": always(r(1, 4, 2, 8, 8)),
                     "prepare_prev_segment_cond_latents": always(r(1, 8, 2, 8, 8))}),
    ],
    "ChronoEditTransformer3DModel": [
        run("chronoedit/pipeline_chronoedit", "ChronoEditPipeline",
            text(6, 16, num_frames=5, image=torch.zeros(1, 3, 64, 64)), parts={"vae": vae()},
            network={"in_channels": 8, "image_dim": 16},
            methods={**COND, "prepare_latents": always(r(1, 4, 2, 8, 8), r(1, 4, 2, 8, 8))}),
    ],
    "HeliosTransformer3DModel": [
        run("helios/pipeline_helios", "HeliosPipeline",
            text(6, 16, num_frames=5, num_latent_frames_per_chunk=2, history_sizes=[4, 2, 1]), parts={"vae": vae()},
            scheduler="HeliosScheduler", settings=ONE_STAGE, network={"has_multi_term_memory_patch": True}),
    ],
    "MotifVideoTransformer3DModel": [
        run("motif_video/pipeline_motif_video", "MotifVideoPipeline", text(6, 32, **ATTENDED, num_frames=5),
            parts={"vae": vae(), "guider": guider()}),
    ],
    "Kandinsky5Transformer3DModel": [
        run("kandinsky5/pipeline_kandinsky", "Kandinsky5T2VPipeline",
            {"prompt_embeds_qwen": r(1, 6, 16), "prompt_embeds_clip": r(1, 8),
             "prompt_cu_seqlens": torch.tensor([0, 6], dtype=torch.int32), "num_frames": 1}),
    ],
    "AnyFlowTransformer3DModel": [
        run("anyflow/pipeline_anyflow", "AnyFlowPipeline", text(6, 16, num_frames=5, use_mean_velocity=False),
            scheduler="FlowMapEulerDiscreteScheduler"),
    ],
    "CosmosTransformer3DModel": [
        run("cosmos/pipeline_cosmos2_text2image", "Cosmos2TextToImagePipeline", text(6, 16), plain=True,
            settings={"use_karras_sigmas": True}, parts=guarded()),
        run("cosmos/pipeline_cosmos_text2world", "CosmosTextToWorldPipeline", text(6, 16, num_frames=1),
            scheduler="EDMEulerScheduler", settings={"sigma_data": 1.0}, parts=guarded()),
    ],
}  # fmt: skip

SOUNDS = {
    "StableAudioDiTModel": [
        run("stable_audio/pipeline_stable_audio", "StableAudioPipeline",
            text(6, 4, audio_end_in_s=4, attention_mask=torch.ones(1, 6)), scheduler="EDMDPMSolverMultistepScheduler",
            parts={"vae": Part(hop_length=4, config=SimpleNamespace(sampling_rate=4, audio_channels=1)),
                   "projection_model": Part(config=SimpleNamespace(max_value=8, min_value=0, conditioning_dim=4))},
            methods={"encode_prompt": always(r(1, 6, 4)), "encode_duration": always(r(1, 1, 4), r(1, 1, 4))}),
    ],
    "LongCatAudioDiTTransformer": [
        run("longcat_audio_dit/pipeline_longcat_audio_dit", "LongCatAudioDiTPipeline",
            {"prompt": "x", "audio_duration_s": 1.0}, settings=BACKWARDS,
            parts={"vae": vae(sample_rate=16, downsampling_ratio=1, latent_dim=8)},
            methods={"encode_prompt": always(r(1, 6, 32), torch.tensor([6]))}),
    ],
    "StableAudio3DiTModel": [
        run("stable_audio_3/pipeline_stable_audio_3", "StableAudio3Pipeline",
            text(6, 8, duration=4.0, silence_padding_duration=0.0), settings=SECONDS,
            parts={"vae": Part(config=SimpleNamespace(sampling_rate=4, latent_dim=4), downsampling_ratio=1)},
            methods={"encode_prompt": always(r(1, 6, 8), TRUE), "encode_duration": always(r(1, 8)),
                     "prepare_cross_attention": always(r(1, 6, 8), TRUE)}),
    ],
    "MiniMaxMusic3Transformer1DModel": [
        Run("modular_pipelines/minimax_music3/denoise", "MiniMaxMusic3ChunkDenoiseInner",
            {"set_timesteps": {"sigmas": [1.0, 0.6, 0.3]}, "block": music3}, settings={**BACKWARDS, **SECONDS}),
    ],
    "AceStepTransformer1DModel": [
        run("ace_step/pipeline_ace_step", "AceStepPipeline", {"prompt": "x", "audio_duration": 1.0}, settings=SECONDS,
            parts={"vae": vae(sampling_rate=8, downsampling_ratio=1), "condition_encoder": Silence()},
            methods={"encode_prompt": always(r(1, 6, 32), None, r(1, 6, 32), None),
                     "prepare_src_latents": always(r(1, 8, 8), 8)}),
    ],
}  # fmt: skip

RUNS = {**UNETS, **IMAGES, **VIDEOS, **SOUNDS}
