"""Pipelines that begin with an image or a video: part of the loop is left out, by its strength."""

import torch

from tests.helpers.pipeline_rows import (
    ATTENDED,
    COG,
    EULER,
    LEARNED,
    ONES,
    PLAIN,
    TABLE,
    V,
    always,
    run,
    text,
    vae,
)
from tests.helpers.tiny_networks import ids, r

SD, IMAGE = "stable_diffusion/pipeline_stable_diffusion", torch.zeros(1, 3, 64, 64)
PART = {"strength": 0.75, "num_inference_steps": 4}  # three of four steps
MASKED = {**PART, "mask_image": torch.ones(1, 1, 64, 64)}
FOUR, PACKED = r(1, 4, 8, 8), r(1, 16, 4)

MOVQ = vae()
MOVQ.encode = always({"latents": FOUR})

# class of the networks: the pipelines
FROM_IMAGES = {
    "UNet2DConditionModel": [
        run(f"{SD}_img2img", "StableDiffusionImg2ImgPipeline", text(4, 8, image=FOUR, **PART), **TABLE, part="unet",
            parts={"vae": vae()}),
        run(f"{SD}_img2img", "StableDiffusionImg2ImgPipeline", text(4, 8, image=FOUR, **PART), scheduler=EULER,
            settings=V, part="unet", parts={"vae": vae()}),
        run(f"{SD}_inpaint", "StableDiffusionInpaintPipeline", text(4, 8, image=IMAGE, **MASKED), **TABLE, part="unet",
            parts={"vae": vae()},
            methods={"prepare_latents": always(FOUR, FOUR, FOUR), "prepare_mask_latents": always(FOUR[:, :1], FOUR)}),
        run("deepfloyd_if/pipeline_if_img2img", "IFImg2ImgPipeline", text(4, 8, image=r(1, 3, 8, 8), **PART),
            scheduler="DDPMScheduler", settings={**PLAIN, **LEARNED}, part="unet",
            network={"in_channels": 3, "out_channels": 6}),
        run("latent_consistency_models/pipeline_latent_consistency_img2img", "LatentConsistencyModelImg2ImgPipeline",
            text(4, 8, image=FOUR, **PART, original_inference_steps=10), scheduler="LCMScheduler", part="unet",
            parts={"vae": vae()}, network={"time_cond_proj_dim": 8}),
    ],
    "Kandinsky3UNet": [
        run("kandinsky3/pipeline_kandinsky3_img2img", "Kandinsky3Img2ImgPipeline",
            text(6, 8, attention_mask=torch.ones(1, 6), image=FOUR, **PART), scheduler="DDPMScheduler", settings=PLAIN,
            part="unet", parts={"movq": MOVQ}),
    ],
    "SD3Transformer2DModel": [
        run("stable_diffusion_3/pipeline_stable_diffusion_3_img2img", "StableDiffusion3Img2ImgPipeline",
            text(6, 32, pooled_prompt_embeds=r(1, 64), image=FOUR, **PART), settings={"shift": 3.0},
            methods={"prepare_latents": always(FOUR)}),
    ],
    "SanaTransformer2DModel": [
        run("sana/pipeline_sana_sprint_img2img", "SanaSprintImg2ImgPipeline",
            text(6, 8, **ATTENDED, use_resolution_binning=False, image=torch.zeros(1, 3, 256, 256), height=256,
                 width=256, intermediate_timesteps=None, **PART), scheduler="SCMScheduler",
            parts={"vae": vae(encoder_block_out_channels=(1,) * 6)},
            network={"guidance_embeds": True, "guidance_embeds_scale": 0.1},
            methods={"prepare_latents": always(FOUR)}),
    ],
    "FluxTransformer2DModel": [
        run("flux/pipeline_flux_img2img", "FluxImg2ImgPipeline",
            text(6, 32, pooled_prompt_embeds=r(1, 32), image=IMAGE, **PART),
            methods={"prepare_latents": always(PACKED, ids(16))}),
        run("flux/pipeline_flux_inpaint", "FluxInpaintPipeline",
            text(6, 32, pooled_prompt_embeds=r(1, 32), image=IMAGE, **MASKED),
            methods={"prepare_latents": always(PACKED, PACKED, PACKED, ids(16)),
                     "prepare_mask_latents": always(PACKED, PACKED)}),
    ],
    "ChromaTransformer2DModel": [
        run("chroma/pipeline_chroma_img2img", "ChromaImg2ImgPipeline", text(6, 32, **ATTENDED, image=IMAGE, **PART),
            methods={"prepare_latents": always(PACKED, ids(16))}),
    ],
    "QwenImageTransformer2DModel": [
        run("qwenimage/pipeline_qwenimage_img2img", "QwenImageImg2ImgPipeline",
            text(6, 16, prompt_embeds_mask=ONES, image=IMAGE, **PART),
            methods={"prepare_latents": always(r(1, 16, 16))}),
    ],
    "ZImageTransformer2DModel": [
        run("z_image/pipeline_z_image_img2img", "ZImageImg2ImgPipeline",
            {"prompt_embeds": [r(16, 16)], "image": IMAGE, "guidance_scale": 0.0, **PART},
            methods={"prepare_latents": always(r(1, 16, 8, 8))}),
    ],
    "CogVideoXTransformer3DModel": [
        run("cogvideo/pipeline_cogvideox_video2video", "CogVideoXVideoToVideoPipeline",
            text(8, 8, video=IMAGE[None], **PART), scheduler=COG, settings={**PLAIN, **V},
            parts={"vae": vae(temporal_compression_ratio=4)}, methods={"prepare_latents": always(r(1, 1, 4, 8, 8))}),
    ],
    "UNetMotionModel": [
        run("animatediff/pipeline_animatediff_video2video", "AnimateDiffVideoToVideoPipeline",
            text(4, 16, video=[IMAGE[0]] * 2, **PART), **TABLE, part="unet", parts={"vae": vae()},
            methods={"check_inputs": always(None), "prepare_latents": always(r(1, 4, 2, 8, 8))}),
    ],
    "WanTransformer3DModel": [
        run("wan/pipeline_wan_video2video", "WanVideoToVideoPipeline", text(6, 16, video=[IMAGE[0]] * 5, **PART),
            parts={"vae": vae()}, methods={"prepare_latents": always(r(1, 4, 2, 8, 8))}),
    ],
}  # fmt: skip
