"""A tiny random SDXL, made from diffusers' classes."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def make_painter(made: Path) -> Path:
    """Its folder, in another one."""
    import diffusers
    import transformers

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokens = made / "tokens"
    tokens.mkdir()
    (tokens / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (tokens / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(tokens / "vocab.json"), str(tokens / "merges.txt"), model_max_length=16, pad_token="<|endoftext|>"
    )
    sizes = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=8, intermediate_size=8, projection_dim=8, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(4, 8), norm_num_groups=2, cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=8 + 6 * 4, transformer_layers_per_block=1,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), norm_num_groups=2, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(sizes),
        text_encoder_2=transformers.CLIPTextModelWithProjection(sizes),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    ).save_pretrained(made / "model")
    return made / "model"
