"""The files that cases are about."""

from __future__ import annotations

from .content import Content, Entry
from .settings import Settings


def language_model(settings: Settings) -> Content:
    """290 tensors, 2.3 GB: 32 layers of a transformer in bfloat16."""
    wide, deep, narrow = (2048, 4096, 256) if not settings.small else (64, 128, 32)
    shapes = {
        "self_attn.q_proj": (wide, wide),
        "self_attn.k_proj": (narrow, wide),
        "self_attn.v_proj": (narrow, wide),
        "self_attn.o_proj": (wide, wide),
        "mlp.gate_proj": (deep, wide),
        "mlp.up_proj": (deep, wide),
        "mlp.down_proj": (wide, deep),
        "input_layernorm": (wide,),
        "post_attention_layernorm": (wide,),
    }
    entries = [
        Entry("model.embed_tokens.weight", "BF16", (16 * wide, wide)),
        Entry("model.norm.weight", "BF16", (wide,)),
    ]
    for layer in range(32):
        entries += [Entry(f"model.layers.{layer}.{name}.weight", "BF16", shape) for name, shape in shapes.items()]
    return Content("language-model", entries)


def gigabyte(settings: Settings) -> Content:
    """250 tensors of 4 MB."""
    shape = (1000, 1024) if not settings.small else (10, 64)
    return Content("gigabyte", [Entry(f"layers.{i:03}.weight", "F32", shape) for i in range(250)])


def one_tensor(settings: Settings) -> Content:
    """A single tensor of 1 GB."""
    return Content("one-tensor", [Entry("weight", "F32", (settings.scaled(250_000, 2_500), 1024))])


def many(settings: Settings, count: int | None = None) -> Content:
    """100,000 tensors of 16 bytes."""
    count = count or settings.scaled(100_000, 1_000)
    return Content(f"many-{count}", [Entry(f"tensor.{i:06}", "F32", (4,)) for i in range(count)])


def mixture_of_experts(settings: Settings) -> Content:
    """18,867 tensors under the names that 48 layers of 128 experts give, of 64 bytes each."""
    layers, experts = (48, 128) if not settings.small else (2, 8)
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        names += [f"{prefix}.self_attn.{part}.weight" for part in ("q_proj", "k_proj", "v_proj", "o_proj")]
        names += [f"{prefix}.self_attn.{part}.weight" for part in ("q_norm", "k_norm")]
        names += [f"{prefix}.{part}.weight" for part in ("input_layernorm", "post_attention_layernorm", "mlp.gate")]
        for expert in range(experts):
            parts = "gate_proj", "up_proj", "down_proj"
            names += [f"{prefix}.mlp.experts.{expert}.{part}.weight" for part in parts]
    return Content("mixture-of-experts", [Entry(name, "BF16", (4, 8)) for name in names])


def small(settings: Settings) -> Content:
    """Ten tensors of 4 KB."""
    del settings
    return Content("small", [Entry(f"tensor.{i}", "F32", (32, 32)) for i in range(10)])


def on_slow_disk(settings: Settings) -> Content:
    """Eight tensors of 4 MB."""
    return Content("slow", [Entry(f"tensor.{i}", "F32", (settings.scaled(1024, 16), 1024)) for i in range(8)])


def shard(settings: Settings, index: int) -> Content:
    """One of several files of 64 tensors, 256 MB."""
    rows = settings.scaled(1024, 16)
    return Content(f"shard-{index}", [Entry(f"shard.{index}.{i:02}", "F32", (rows, 1024)) for i in range(64)])


def tied_model(settings: Settings, rows: int, count: int | None = None, tied: int | None = None) -> Content:
    """1,000 parameters, 50 of which have a second name, ``tied.*``, that the file knows as metadata alone.

    The reference keeps the name that sorts first, and notes ``dropped -> kept``.
    """
    count = count or settings.scaled(1_000, 40)
    tied = tied or count // 20
    entries = [Entry(f"layers.{i // 10}.part{i % 10}.weight", "F32", (rows, 256)) for i in range(count)]
    metadata = {f"tied.{i}.weight": entries[i].name for i in range(tied)}
    return Content(f"model-{count}x{rows}-{tied}", entries, metadata)


def on_device(settings: Settings, count: int, gigabytes: float) -> Content:
    """``count`` tensors in bfloat16 that fill so many gigabytes."""
    columns = max(1, int((settings.scaled(1000, 1) * 1e6 * gigabytes / count) // 2 // 64))
    return Content(
        f"device-{count}-{gigabytes:g}", [Entry(f"tensor.{i:05}", "BF16", (64, columns)) for i in range(count)]
    )
