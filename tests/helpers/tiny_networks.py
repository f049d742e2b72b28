"""One tiny random instance of every class of networks that from_diffusers knows, and what its pipeline tells it.

A row holds the settings of the network, the shape of one state, its conditions for one state, and, transcribed from the
pipeline of the class, the time that it is told (`t`, N = 1000) and the sign of its answer before the scheduler's step.
"""

import torch

T, UNIT, BACK = (lambda t: t), (lambda t: t / 1000), (lambda t: 1 - t / 1000)


def r(*shape):
    """Random numbers that depend on the shape alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def ids(count, axes=3):
    """Positions of packed tokens."""
    return torch.stack([torch.arange(count).float() % (3 + k) for k in range(axes)], 1)


def text(length, width, /, **more):
    return {"encoder_hidden_states": r(1, length, width), **more}


def sizes(names, value):
    return {name: torch.tensor([value]).float() for name in names}


UNET = {"sample_size": 8, "block_out_channels": (4, 8), "norm_num_groups": 2, "layers_per_block": 1}
CROSS = {
    "block_out_channels": (4, 8), "norm_num_groups": 4, "cross_attention_dim": 8, "attention_head_dim": 2,
    "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "sample_size": 8,
}  # fmt: skip
DIT = {
    "num_layers": 1, "patch_size": 2, "num_attention_heads": 2, "in_channels": 4, "out_channels": 8,
    "attention_bias": True, "activation_fn": "gelu-approximate", "sample_size": 8,
}  # fmt: skip
FLUX = {
    "patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": [4, 4, 8],
}  # fmt: skip
WAN = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4,
    "text_dim": 16, "freq_dim": 256, "ffn_dim": 32, "num_layers": 1, "cross_attn_norm": True,
}  # fmt: skip
COG = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4, "time_embed_dim": 2,
    "text_embed_dim": 8, "num_layers": 1, "sample_width": 8, "sample_height": 8, "sample_frames": 8, "patch_size": 2,
    "temporal_compression_ratio": 4, "max_text_seq_length": 8,
}  # fmt: skip
HUNYUAN = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "num_layers": 1, "num_refiner_layers": 1,
    "patch_size": 1, "patch_size_t": 1, "text_embed_dim": 16,
}  # fmt: skip
QWEN = {
    "patch_size": 2, "in_channels": 16, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16,
    "num_attention_heads": 4, "joint_attention_dim": 16, "axes_dims_rope": (8, 4, 4),
}  # fmt: skip
IDS = {"img_ids": ids(16), "txt_ids": ids(6)}
MASK = {"encoder_attention_mask": torch.ones(1, 6)}
VIDEO = (4, 2, 8, 8)
FLUX_TEXT = text(6, 32, **IDS)
LONGCAT = {"dit_dim": 64, "dit_depth": 1, "dit_heads": 4, "dit_text_dim": 32, "latent_dim": 8, "text_conv": False}

# settings of the scheduler that a class is trained with, where they are not the usual
BACKWARDS = {"invert_sigmas": True}
TRAINED_WITH = {
    "MochiTransformer3DModel": BACKWARDS,
    "LongCatAudioDiTTransformer": BACKWARDS,
    "OmniGenTransformer2DModel": {**BACKWARDS, "num_train_timesteps": 1},
    "MiniMaxMusic3Transformer1DModel": {**BACKWARDS, "num_train_timesteps": 1},
    "AceStepTransformer1DModel": {"num_train_timesteps": 1},
    "StableAudio3DiTModel": {"num_train_timesteps": 1},
}

# class: settings, state, conditions, told, sign
TINY = {
    "UNet1DModel": (
        {"block_out_channels": (8, 8, 16, 16), "in_channels": 14, "out_channels": 14,
         "time_embedding_type": "positional",
         "use_timestep_embedding": True, "flip_sin_to_cos": False, "freq_shift": 1.0,
         "out_block_type": "OutConv1DBlock",
         "mid_block_type": "MidResTemporalBlock1D", "down_block_types": ("DownResnetBlock1D",) * 4,
         "up_block_types": ("UpResnetBlock1D",) * 3, "act_fn": "swish"},
        (14, 16), {}, T, 1),
    "UNet2DModel": (
        {**UNET, "in_channels": 3, "out_channels": 6, "down_block_types": ("DownBlock2D",) * 2,
         "up_block_types": ("UpBlock2D",) * 2},
        (3, 8, 8), {}, T, 1),
    "UNet2DConditionModel": (
        {**CROSS, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
         "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")},
        (4, 8, 8), text(4, 8), T, 1),
    "UNet3DConditionModel": (
        {**CROSS, "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
         "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D")},
        (4, 2, 8, 8), text(4, 8), T, 1),
    "UNetMotionModel": (
        {"block_out_channels": (16, 32), "norm_num_groups": 16, "cross_attention_dim": 16, "num_attention_heads": 2,
         "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "sample_size": 8,
         "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
         "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion")},
        (4, 2, 8, 8), text(4, 16), T, 1),
    "UNetSpatioTemporalConditionModel": (
        {"block_out_channels": (32, 64), "cross_attention_dim": 32, "num_attention_heads": 8, "in_channels": 8,
         "out_channels": 4, "layers_per_block": 1, "sample_size": 8, "projection_class_embeddings_input_dim": 96,
         "addition_time_embed_dim": 32,
         "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
         "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal")},
        (2, 4, 8, 8), text(1, 32, added_time_ids=torch.tensor([[6.0, 127.0, 0.02]]), beside=r(1, 2, 4, 8, 8)), T, 1),
    "UNetControlNetXSModel": (
        {"sample_size": 16, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
         "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "block_out_channels": (4, 8), "cross_attention_dim": 8,
         "transformer_layers_per_block": 1, "num_attention_heads": 2, "norm_num_groups": 4,
         "ctrl_block_out_channels": [2, 4], "ctrl_num_attention_heads": 4, "ctrl_max_norm_num_groups": 2,
         "ctrl_conditioning_embedding_out_channels": (2, 2)},
        (4, 16, 16), text(4, 8, controlnet_cond=r(1, 3, 32, 32), conditioning_scale=1), T, 1),
    "DreamLiteUNetModel": (
        {"sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 2, "layers_per_block": 1,
         "down_block_types": ("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
         "up_block_types": ("DreamLiteCrossAttnUpBlock2D", "DreamLiteCrossAttnNoSelfAttnUpBlock2D"),
         "cross_attention_dim": 8, "attention_head_dim": 4, "ff_mult": 2},
        (4, 8, 8), text(6, 8, beside=r(1, 4, 8, 8)), T, 1),
    "StableCascadeUNet": (
        {"in_channels": 4, "out_channels": 4, "timestep_ratio_embedding_dim": 8, "conditioning_dim": 16,
         "block_out_channels": (16,), "num_attention_heads": (2,), "down_num_layers_per_block": (1,),
         "up_num_layers_per_block": (1,), "down_blocks_repeat_mappers": (1,), "up_blocks_repeat_mappers": (1,),
         "block_types_per_layer": (("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),),
         "clip_text_pooled_in_channels": 16, "clip_seq": 2, "dropout": (0.1,), "self_attn": (True,)},
        (4, 8, 8), {"clip_text_pooled": r(1, 1, 16)}, T, 1),
    "I2VGenXLUNet": (
        {**CROSS, "norm_num_groups": 2, "cross_attention_dim": 32, "num_attention_heads": 2,
         "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
         "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D")},
        (4, 2, 16, 16), text(4, 32, fps=torch.tensor([16]), image_latents=r(1, 4, 2, 16, 16),
                             image_embeddings=r(1, 32)), T, 1),
    "Kandinsky3UNet": (
        {"in_channels": 4, "time_embedding_dim": 4, "groups": 2, "attention_head_dim": 4, "layers_per_block": 3,
         "block_out_channels": (8, 16), "cross_attention_dim": 4, "encoder_hid_dim": 8},
        (4, 8, 8), text(6, 8, encoder_attention_mask=torch.ones(1, 6)), T, 1),
    "PriorTransformer": (
        {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "embedding_dim": 8, "num_embeddings": 7,
         "additional_embeddings": 4},
        (8,), text(7, 8, proj_embedding=r(1, 8)), T, 1),
    "DiTTransformer2DModel": (
        {**DIT, "attention_head_dim": 4, "norm_type": "ada_norm_zero", "num_embeds_ada_norm": 8},
        (4, 8, 8), {"class_labels": torch.tensor([3])}, T, 1),
    "PixArtTransformer2DModel": (
        {**DIT, "attention_head_dim": 2, "cross_attention_dim": 8, "num_embeds_ada_norm": 8,
         "norm_type": "ada_norm_single", "norm_elementwise_affine": False, "use_additional_conditions": False},
        (4, 8, 8), text(6, 8, added_cond_kwargs={"aspect_ratio": None, "resolution": None}), T, 1),
    "HunyuanDiT2DModel": (
        {"sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8,
         "num_attention_heads": 2, "cross_attention_dim": 8, "cross_attention_dim_t5": 8, "pooled_projection_dim": 4,
         "hidden_size": 16, "text_len": 4, "text_len_t5": 4, "activation_fn": "gelu-approximate"},
        (4, 8, 8),
        text(4, 8, text_embedding_mask=torch.ones(1, 4), encoder_hidden_states_t5=r(1, 4, 8),
             text_embedding_mask_t5=torch.ones(1, 4), style=torch.zeros(1, dtype=int),
             image_meta_size=torch.tensor([[1024.0, 1024, 16, 16, 0, 0]]),
             image_rotary_emb=(torch.ones(1, 8), torch.zeros(1, 8))), T, 1),
    "LatteTransformer3DModel": (
        {**DIT, "attention_head_dim": 4, "caption_channels": 8, "cross_attention_dim": 8, "num_embeds_ada_norm": 1000,
         "norm_type": "ada_norm_single", "norm_elementwise_affine": False},
        (4, 1, 8, 8), text(6, 8), T, 1),
    "AllegroTransformer3DModel": (
        {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4, "num_layers": 1,
         "cross_attention_dim": 16, "sample_width": 8, "sample_height": 8, "sample_frames": 8, "caption_channels": 8},
        VIDEO, text(6, 8), T, 1),
    "CogVideoXTransformer3DModel": (COG, (1, 4, 8, 8), text(8, 8), T, 1),
    "ConsisIDTransformer3DModel": (
        {**COG, "cross_attn_interval": 1, "is_kps": False, "is_train_face": True, "cross_attn_dim_head": 1,
         "cross_attn_num_heads": 1, "LFE_id_dim": 2, "LFE_vit_dim": 2, "LFE_depth": 5, "LFE_dim_head": 8,
         "LFE_num_heads": 2, "LFE_num_id_token": 1, "LFE_num_querie": 1, "LFE_output_dim": 10, "LFE_ff_mult": 1,
         "LFE_num_scale": 1},
        (1, 4, 8, 8), text(8, 8, id_vit_hidden=[r(1, 2, 2)], id_cond=r(1, 2)), T, 1),
    "CogView3PlusTransformer2DModel": (
        {"patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2,
         "out_channels": 4, "text_embed_dim": 8, "time_embed_dim": 8, "condition_dim": 2, "pos_embed_max_size": 8,
         "sample_size": 8},
        (4, 8, 8), text(6, 8, **sizes(("original_size", "target_size", "crop_coords"), [64, 64])), T, 1),
    "CogView4Transformer2DModel": (
        {"patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 4,
         "out_channels": 4, "text_embed_dim": 8, "time_embed_dim": 8, "condition_dim": 4},
        (4, 8, 8), text(6, 8, **sizes(("original_size", "target_size", "crop_coords"), [64, 64])), T, 1),
    "EasyAnimateTransformer3DModel": (
        {"attention_head_dim": 16, "num_attention_heads": 2, "in_channels": 4, "mmdit_layers": 1, "num_layers": 1,
         "out_channels": 4, "patch_size": 2, "sample_height": 60, "sample_width": 90, "text_embed_dim": 16,
         "time_embed_dim": 8, "time_position_encoding_type": "3d_rope", "timestep_activation_fn": "silu"},
        VIDEO, text(6, 16), T, 1),
    "ErnieImageTransformer2DModel": (
        {"hidden_size": 16, "num_attention_heads": 1, "num_layers": 1, "ffn_hidden_size": 16, "in_channels": 16,
         "out_channels": 16, "patch_size": 1, "text_in_dim": 16, "rope_theta": 256, "rope_axes_dim": (8, 4, 4)},
        (16, 4, 4), {"text_bth": r(1, 6, 16), "text_lens": torch.tensor([6])}, T, 1),
    "BriaTransformer2DModel": (
        {**FLUX, "attention_head_dim": 8, "pooled_projection_dim": None, "axes_dims_rope": [0, 4, 4]},
        (16, 4), FLUX_TEXT, T, 1),
    "BriaFiboTransformer2DModel": (
        {**FLUX, "attention_head_dim": 8, "pooled_projection_dim": None, "axes_dims_rope": [0, 4, 4],
         "joint_attention_dim": 64, "text_encoder_dim": 32},
        (16, 4), text(6, 64, text_encoder_layers=[r(1, 6, 32)] * 2, **IDS), T, 1),
    "SD3Transformer2DModel": (
        {"sample_size": 8, "patch_size": 1, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8,
         "num_attention_heads": 4, "caption_projection_dim": 32, "joint_attention_dim": 32, "pooled_projection_dim": 64,
         "out_channels": 4, "pos_embed_max_size": 8},
        (4, 8, 8), text(6, 32, pooled_projections=r(1, 64)), T, 1),
    "SanaTransformer2DModel": (
        {"patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1, "attention_head_dim": 4,
         "num_attention_heads": 2, "num_cross_attention_heads": 2, "cross_attention_head_dim": 4,
         "cross_attention_dim": 8, "caption_channels": 8, "sample_size": 8, "timestep_scale": 0.5},
        (4, 8, 8), text(6, 8), lambda t: 0.5 * t, 1),
    "SanaVideoTransformer3DModel": (
        {"in_channels": 16, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1,
         "num_cross_attention_heads": 2, "cross_attention_head_dim": 12, "cross_attention_dim": 24,
         "caption_channels": 16, "sample_size": 8, "patch_size": (1, 2, 2), "qk_norm": "rms_norm_across_heads"},
        (16, 2, 8, 8), text(6, 16), T, 1),
    "LTXVideoTransformer3DModel": (
        {"in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
         "cross_attention_dim": 16, "num_layers": 1, "qk_norm": "rms_norm_across_heads", "caption_channels": 16},
        (32, 4), text(6, 16, **MASK, num_frames=2, height=4, width=4), T, 1),
    "MochiTransformer3DModel": (
        {"patch_size": 2, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1,
         "pooled_projection_dim": 16,
         "in_channels": 4, "qk_norm": "rms_norm", "text_embed_dim": 16, "time_embed_dim": 4,
         "activation_fn": "swiglu", "max_sequence_length": 16},
        VIDEO, text(6, 16, encoder_attention_mask=torch.ones(1, 6, dtype=torch.bool)), T, 1),
    "OmniGenTransformer2DModel": (
        {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 32,
         "num_layers": 1,
         "pad_token_id": 0, "vocab_size": 100, "in_channels": 4, "time_step_dim": 4,
         "rope_scaling": {"long_factor": [1, 2], "short_factor": [1, 2]}},
        (4, 8, 8),
        {"input_ids": torch.tensor([[1, 2, 3, 4]]), "input_img_latents": [], "input_image_sizes": {},
         "attention_mask": torch.ones(1, 21, 21), "position_ids": torch.arange(21)[None]}, UNIT, 1),
    "HunyuanVideoTransformer3DModel": (
        {**HUNYUAN, "attention_head_dim": 10, "num_single_layers": 1, "guidance_embeds": True,
         "pooled_projection_dim": 8,
         "rope_axes_dim": (2, 4, 4)},
        (4, 1, 8, 8), text(6, 16, **MASK, pooled_projections=r(1, 8), guidance=torch.tensor([6000.0])), T, 1),
    "HunyuanVideoFramepackTransformer3DModel": (
        {**HUNYUAN, "attention_head_dim": 10, "num_single_layers": 1, "guidance_embeds": False, "patch_size": 2,
         "pooled_projection_dim": 8, "rope_axes_dim": (2, 4, 4), "has_image_proj": True, "image_proj_dim": 16,
         "has_clean_x_embedder": True},
        (4, 3, 4, 4),
        text(6, 16, **MASK, pooled_projections=r(1, 8), image_embeds=r(1, 6, 16), indices_latents=torch.ones(3),
             latents_clean=r(1, 4, 2, 4, 4), indices_latents_clean=torch.ones(2),
             latents_history_2x=r(1, 4, 2, 4, 4), indices_latents_history_2x=torch.ones(2),
             latents_history_4x=r(1, 4, 8, 4, 4), indices_latents_history_4x=torch.ones(8)), T, 1),
    "HunyuanVideo15Transformer3DModel": (
        {**HUNYUAN, "attention_head_dim": 8, "mlp_ratio": 2.0, "text_embed_2_dim": 8, "image_embed_dim": 12,
         "rope_axes_dim": (2, 2, 4), "target_size": 16, "task_type": "t2v", "in_channels": 9},
        (4, 1, 4, 4),
        text(6, 16, **MASK, encoder_hidden_states_2=r(1, 4, 8), encoder_attention_mask_2=torch.ones(1, 4),
             image_embeds=torch.zeros(1, 3, 12), beside=r(1, 5, 1, 4, 4)), T, 1),
    "HunyuanImageTransformer2DModel": (
        {"in_channels": 4, "out_channels": 4, "num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 1,
         "num_single_layers": 1, "num_refiner_layers": 1, "patch_size": (1, 1), "text_embed_dim": 16,
         "rope_axes_dim": (4, 4), "guidance_embeds": False},
        (4, 8, 8), text(6, 16, **MASK), T, 1),
    "WanTransformer3DModel": ({**WAN, "rope_max_seq_len": 32}, VIDEO, text(6, 16), T, 1),
    "SkyReelsV2Transformer3DModel": ({**WAN, "rope_max_seq_len": 32}, VIDEO, text(6, 16), T, 1),
    "WanVACETransformer3DModel": (
        {**WAN, "rope_max_seq_len": 32, "vace_layers": [0], "vace_in_channels": 8},
        VIDEO, text(6, 16, control_hidden_states=r(1, 8, 2, 8, 8)), T, 1),
    "WanAnimateTransformer3DModel": (
        {**WAN, "in_channels": 12, "latent_channels": 4, "image_dim": 16, "rope_max_seq_len": 32,
         "motion_encoder_channel_sizes": {"4": 16, "8": 16, "16": 16}, "motion_encoder_size": 16, "motion_style_dim": 8,
         "motion_dim": 4, "motion_encoder_dim": 16, "face_encoder_hidden_dim": 16, "face_encoder_num_heads": 2,
         "inject_face_latents_blocks": 1},
        (4, 2, 8, 8),
        text(6, 16, encoder_hidden_states_image=r(1, 4, 16), pose_hidden_states=r(1, 4, 1, 8, 8),
             face_pixel_values=r(1, 3, 1, 16, 16), beside=r(1, 8, 2, 8, 8)), T, 1),
    "ChronoEditTransformer3DModel": (
        {**WAN, "rope_max_seq_len": 64, "rope_temporal_skip_len": 8}, VIDEO, text(6, 16), T, 1),
    "HeliosTransformer3DModel": (
        {**WAN, "rope_dim": (4, 4, 4), "has_multi_term_memory_patch": False, "guidance_cross_attn": False,
         "zero_history_timestep": False, "is_amplify_history": False},
        VIDEO, text(6, 16), T, 1),
    "MotifVideoTransformer3DModel": (
        {"in_channels": 9, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1,
         "num_single_layers": 1, "num_decoder_layers": 0, "patch_size": 1, "patch_size_t": 1, "text_embed_dim": 32,
         "image_embed_dim": 4, "rope_axes_dim": (4, 4, 4), "enable_text_cross_attention_dual": False,
         "enable_text_cross_attention_single": False},
        (4, 2, 4, 4), text(6, 32, beside=r(1, 5, 2, 4, 4)), T, 1),
    "JoyImageEditTransformer3DModel": (
        {"patch_size": [1, 2, 2], "in_channels": 16, "hidden_size": 32, "num_attention_heads": 2, "text_dim": 16,
         "num_layers": 1, "rope_dim_list": [4, 6, 6]},
        (16, 1, 4, 4), text(6, 16), T, 1),
    "JoyImageEditPlusTransformer3DModel": (
        {"patch_size": [1, 2, 2], "in_channels": 16, "hidden_size": 32, "num_attention_heads": 2, "text_dim": 16,
         "num_layers": 1, "rope_dim_list": [4, 6, 6]},
        (2, 16, 1, 2, 2), text(6, 16, shape_list=[[(1, 1, 1), (1, 1, 1)]]), T, 1),
    "Kandinsky5Transformer3DModel": (
        {"in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 16, "in_text_dim2": 8, "time_dim": 16, "model_dim": 24,
         "ff_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 1, "axes_dims": (4, 4, 4)},
        (1, 8, 8, 4),
        text(6, 16, pooled_projections=r(1, 8), visual_rope_pos=tuple(torch.arange(n) for n in (1, 4, 4)),
             text_rope_pos=torch.arange(6)), T, 1),
    "AnyFlowTransformer3DModel": (
        {**WAN, "rope_max_seq_len": 32, "gate_value": 0.25, "deltatime_type": "r"}, (2, 4, 8, 8), text(6, 16), T, 1),
    "HiDreamImageTransformer2DModel": (
        {"patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_single_layers": 1,
         "attention_head_dim": 8, "num_attention_heads": 4, "caption_channels": [8, 4], "text_emb_dim": 8,
         "num_routed_experts": 2, "num_activated_experts": 2, "axes_dims_rope": (4, 2, 2), "max_resolution": (8, 8),
         "llama_layers": (0, 1), "force_inference_output": True},
        (4, 8, 8),
        {"encoder_hidden_states_t5": r(1, 6, 8), "encoder_hidden_states_llama3": r(2, 1, 6, 4),
         "pooled_embeds": r(1, 8)}, T, -1),
    "GlmImageTransformer2DModel": (
        {"patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1, "attention_head_dim": 8,
         "num_attention_heads": 2, "text_embed_dim": 32, "time_embed_dim": 16, "condition_dim": 8,
         "prior_vq_quantizer_codebook_size": 64},
        (4, 8, 8),
        text(6, 32, prior_token_id=torch.tensor([[5] * 16]), prior_token_drop=torch.zeros(1, 16, dtype=torch.bool),
             **sizes(("target_size", "crop_coords"), [8, 8])), lambda t: t - 1, 1),
    "StableAudioDiTModel": (
        {"sample_size": 4, "in_channels": 4, "num_layers": 1, "attention_head_dim": 4,
         "num_key_value_attention_heads": 2,
         "out_channels": 4, "cross_attention_dim": 4, "time_proj_dim": 8, "global_states_input_dim": 8,
         "cross_attention_input_dim": 4, "num_attention_heads": 2},
        (4, 16), text(6, 4, global_hidden_states=r(1, 1, 8),
                      rotary_embedding=(torch.ones(17, 2), torch.zeros(17, 2))), T, 1),
    "FluxTransformer2DModel": (
        {**FLUX, "pooled_projection_dim": 32, "guidance_embeds": True},
        (16, 4), {**FLUX_TEXT, "pooled_projections": r(1, 32), "guidance": torch.tensor([3.5])}, UNIT, 1),
    "Flux2Transformer2DModel": (
        {**FLUX, "axes_dims_rope": [4, 4, 4, 4], "timestep_guidance_channels": 16},
        (16, 4), text(6, 32, img_ids=ids(16, 4), txt_ids=ids(6, 4), guidance=torch.tensor([3.5])), UNIT, 1),
    "Flux3Transformer2DModel": (
        {**{k: v for k, v in FLUX.items() if k != "patch_size"}, "cond_in_channels": 4,
         "axes_dims_rope": (4, 4, 4, 4), "timestep_channels": 16},
        (16, 4), text(6, 32, img_ids=ids(16, 4), txt_ids=ids(6, 4)), UNIT, 1),
    "ChromaTransformer2DModel": (
        {**FLUX, "approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 1},
        (16, 4), FLUX_TEXT, UNIT, 1),
    "LongCatImageTransformer2DModel": (
        {**FLUX, "pooled_projection_dim": 32}, (16, 4), FLUX_TEXT, UNIT, 1),
    "OvisImageTransformer2DModel": ({**FLUX, "out_channels": 4}, (16, 4), FLUX_TEXT, UNIT, 1),
    "QwenImageTransformer2DModel": (
        QWEN, (16, 16),
        text(6, 16, encoder_hidden_states_mask=torch.ones(1, 6, dtype=torch.long), img_shapes=[(1, 4, 4)]), UNIT, 1),
    "QwenImage21Transformer2DModel": (
        {"patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16,
         "num_attention_heads": 2, "context_in_dim": 16, "axes_dims_rope": (8, 4, 4)},
        (16, 4), text(6, 16, img_shapes=[[(1, 4, 4)]], img_mask=torch.tensor([[False] * 6 + [True] * 4])), UNIT, 1),
    "Krea2Transformer2DModel": (
        {"in_channels": 4, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
         "intermediate_size": 32, "timestep_embed_dim": 8, "text_hidden_dim": 16, "num_text_layers": 2,
         "text_num_attention_heads": 2, "text_num_key_value_heads": 1, "text_intermediate_size": 16,
         "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1, "axes_dims_rope": (4, 2, 2)},
        (16, 4), {"encoder_hidden_states": r(1, 6, 2, 16), "position_ids": ids(22)}, UNIT, 1),
    "AuraFlowTransformer2DModel": (
        {"sample_size": 8, "patch_size": 2, "in_channels": 4, "num_mmdit_layers": 1, "num_single_dit_layers": 1,
         "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32, "joint_attention_dim": 32,
         "out_channels": 4, "pos_embed_max_size": 16},
        (4, 8, 8), text(6, 32), UNIT, 1),
    "BriaFibo2Transformer2DModel": (
        {"in_channels": 4, "patch_size": 2, "dim": 16, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2,
         "cap_feat_dim": 8, "injection_layer_ids": (1,), "perceiver_num_layers": 1, "min_num_gist_tokens": 2,
         "max_num_gist_tokens": 4, "gist_step": 2, "gist_min_text_len": 2, "gist_max_text_len": 8,
         "axes_dims": (4, 2, 2), "axes_lens": (32, 16, 16)},
        (4, 8, 8), {"encoder_hidden_states": r(1, 2, 6, 8)}, UNIT, 1),
    "PRXTransformer2DModel": (
        {"in_channels": 4, "patch_size": 2, "context_in_dim": 16, "hidden_size": 16, "num_heads": 2, "depth": 1,
         "axes_dim": [4, 4]},
        (4, 8, 8), text(6, 16), UNIT, 1),
    "LongCatAudioDiTTransformer": (
        LONGCAT, (16, 8),
        text(6, 32, encoder_attention_mask=torch.ones(1, 6, dtype=torch.bool),
             attention_mask=torch.ones(1, 16, dtype=torch.bool)), UNIT, 1),
    "StableAudio3DiTModel": (
        {"io_channels": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "cond_token_dim": 8, "global_cond_dim": 8,
         "local_add_cond_dim": 5, "timestep_features_dim": 8, "num_memory_tokens": 2},
        (4, 16), text(6, 8, global_hidden_states=r(1, 8)), UNIT, 1),
    "MiniMaxMusic3Transformer1DModel": (
        {"in_channels": 8, "condition_dim": 16, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8,
         "ff_inner_dim": 32, "rotary_dim": 4, "fourier_embedding_dim": 8},
        (8, 24), text(24, 16), UNIT, 1),
    "AceStepTransformer1DModel": (
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "in_channels": 24, "audio_acoustic_hidden_dim": 8, "patch_size": 2,
         "sliding_window": 16},
        (8, 8), text(6, 32, context_latents=r(1, 8, 16)), UNIT, 1),
    "CosmosTransformer3DModel": (
        {"in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1,
         "mlp_ratio": 2, "text_embed_dim": 16, "adaln_lora_dim": 4, "max_size": (4, 32, 32), "patch_size": (1, 2, 2),
         "rope_scale": (2.0, 1.0, 1.0), "concat_padding_mask": False},
        (4, 1, 8, 8), text(6, 16), UNIT, 1),
    "NucleusMoEImageTransformer2DModel": (
        {**QWEN, "moe_enabled": False, "capacity_factors": [8.0]},
        (16, 16),
        text(6, 16, encoder_hidden_states_mask=torch.ones(1, 6, dtype=torch.long), img_shapes=[(1, 4, 4)]), UNIT, -1),
    "LuminaNextDiT2DModel": (
        {"sample_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 24, "num_layers": 1,
         "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 16, "learn_sigma": True, "qk_norm": True,
         "cross_attention_dim": 32, "scaling_factor": 1.0},
        (4, 8, 8),
        text(6, 32, encoder_mask=torch.ones(1, 6), image_rotary_emb=torch.polar(torch.ones(384, 384, 4), r(384, 384,
        4)),
             cross_attention_kwargs={}), BACK, -1),
    "Lumina2Transformer2DModel": (
        {"sample_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 24, "num_layers": 1,
         "num_refiner_layers": 1,
         "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 2, "scaling_factor": 1.0,
         "axes_dim_rope": (4, 2, 2), "axes_lens": (32, 32, 32), "cap_feat_dim": 32},
        (4, 8, 8), text(6, 32, encoder_attention_mask=torch.ones(1, 6, dtype=torch.bool)), BACK, -1),
    "ZImageTransformer2DModel": (
        {"all_patch_size": (2,), "all_f_patch_size": (1,), "in_channels": 16, "dim": 16, "n_layers": 1,
         "n_refiner_layers": 1, "n_heads": 1, "n_kv_heads": 2, "cap_feat_dim": 16, "axes_dims": [8, 4, 4],
         "axes_lens": [64, 16, 16]},
        (16, 8, 8), {"cap_feats": [r(16, 16)]}, BACK, -1),
    "Ideogram4Transformer2DModel": (
        {"in_channels": 4, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2, "intermediate_size": 32,
         "adaln_dim": 16, "llm_features_dim": 12, "mrope_section": (2, 1, 1)},
        (4, 4),
        {"encoder_hidden_states": r(1, 7, 12), "position_ids": torch.arange(21).reshape(1, 7, 3),
         "segment_ids": torch.ones(1, 7, dtype=torch.long), "indicator": torch.tensor([[3, 3, 3, 2, 2, 2, 2]])},
        BACK, -1),
}  # fmt: skip
