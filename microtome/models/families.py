"""Which module of which family holds which site, in the words of `layout.py`."""

from collections.abc import Callable
from typing import Any

from microtome.models.adapter import Equation
from microtome.models.layout import (
    Layout,
    Where,
    attended,
    by_head,
    by_kv_head,
    changed,
    columns,
    fused,
    into,
    out_of,
    per_token,
    rules,
    stream,
)

SEQUENTIAL = (Equation("resid_mid", ("resid_pre", "attn_out")), Equation("resid_post", ("resid_mid", "mlp_out")))
PARALLEL = (Equation("resid_post", ("resid_pre", "attn_out", "mlp_out")),)
NO_MID = {"resid_mid": "attention and MLP both read resid_pre, so no stream runs between them"}
NO_UP = {"mlp_up": "its MLP is not gated; mlp_pre is the one branch there is"}
NO_RAW = {
    f"{x}_out_raw": f"nothing is normed before it is added, so {x}_out is what the module returns"
    for x in ("attn", "mlp")
}
UNROTATED = {f"{x}_raw": f"queries and keys are not rotated, so {x} is what the projection returns" for x in "qk"}
HIDDEN_SCORES = {"scores": "its attention computes them inside one function that shows only the pattern; read pattern"}

LLAMA_SITES: dict[str, Where] = {
    "resid_pre": into(""),
    "attn_in": into("self_attn"),
    "q_raw": by_head(out_of("self_attn.q_proj")),
    "k_raw": by_kv_head(out_of("self_attn.k_proj")),
    **attended("self_attn"),
    "z": by_head(into("self_attn.o_proj")),
    "attn_out": out_of("self_attn"),
    "resid_mid": stream(into("post_attention_layernorm")),
    "mlp_in": into("mlp"),
    "mlp_pre": out_of("mlp.gate_proj"),
    "mlp_up": out_of("mlp.up_proj"),
    "mlp_act": into("mlp.down_proj"),
    "mlp_out": out_of("mlp"),
    "resid_post": out_of(""),
}
LLAMA_NORMS = {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
LLAMA_RULES = rules(
    "self_attn.o_proj", "mlp.down_proj", attn_norm="input_layernorm", mlp_norm="post_attention_layernorm"
)
LLAMA = Layout(
    "model.embed_tokens", "model.layers", "model.norm", ("lm_head",), LLAMA_SITES, LLAMA_RULES + SEQUENTIAL, NO_RAW
)  # fmt: skip


PLAIN = {"mlp_pre": out_of("mlp.c_fc"), "mlp_act": into("mlp.c_proj")}
STARCODER2 = Layout(
    LLAMA.embed, LLAMA.layers, LLAMA.final_norm, LLAMA.unembed,
    changed(LLAMA_SITES, ("mlp_up",), **PLAIN),
    rules("self_attn.o_proj", "mlp.c_proj", **LLAMA_NORMS) + SEQUENTIAL,
    NO_RAW | NO_UP,
)  # fmt: skip

GPT2_SITES: dict[str, Where] = {
    "resid_pre": into(""),
    "attn_in": into("attn"),
    **attended("attn"),
    "z": by_head(into("attn.c_proj")),
    "attn_out": out_of("attn"),
    "resid_mid": stream(into("ln_2")),
    "mlp_in": into("mlp"),
    **PLAIN,
    "mlp_out": out_of("mlp"),
    "resid_post": out_of(""),
}
GPT2 = Layout(
    "transformer.wte", "transformer.h", "transformer.ln_f", ("lm_head",), GPT2_SITES,
    rules("attn.c_proj", "mlp.c_proj", attn_norm="ln_1", mlp_norm="ln_2") + SEQUENTIAL,
    NO_RAW | NO_UP | UNROTATED,
)  # fmt: skip
GPT_NEO = Layout(
    GPT2.embed, GPT2.layers, GPT2.final_norm, GPT2.unembed,
    changed(
        GPT2_SITES, ("scores",),
        q=by_head(out_of("attn.attention.q_proj")),
        k=by_head(out_of("attn.attention.k_proj")),
        v=by_head(out_of("attn.attention.v_proj")),
        pattern=out_of("attn.attention.attn_dropout"),
        z=by_head(into("attn.attention.out_proj")),
    ),
    rules("attn.attention.out_proj", "mlp.c_proj", attn_norm="ln_1", mlp_norm="ln_2") + SEQUENTIAL,
    NO_RAW | NO_UP | UNROTATED | HIDDEN_SCORES,
)  # fmt: skip
GPTJ = Layout(
    GPT2.embed, GPT2.layers, GPT2.final_norm, GPT2.unembed,
    changed(
        GPT2_SITES, ("q", "k", "scores", "resid_mid"),
        q_raw=by_head(out_of("attn.q_proj")),
        k_raw=by_head(out_of("attn.k_proj")),
        v=by_head(out_of("attn.v_proj")),
        pattern=out_of("attn.attn_dropout"),
        z=by_head(into("attn.out_proj")),
        mlp_pre=out_of("mlp.fc_in"),
        mlp_act=into("mlp.fc_out"),
    ),
    (*rules("attn.out_proj", "mlp.fc_out", attn_norm="ln_1"), Equation("mlp_in", ("resid_pre",), ("ln_1",)), *PARALLEL),
    NO_RAW | NO_UP | HIDDEN_SCORES | NO_MID
    | {x: f"its attention rotates them inside its own forward; {x}_raw is {x} before the rotation" for x in "qk"},
)  # fmt: skip
BLOOM = Layout(
    "transformer.word_embeddings", "transformer.h", "transformer.ln_f", ("lm_head",),
    {
        "resid_pre": into(""),
        "attn_in": into("self_attention"),
        "q": fused("self_attention.query_key_value", 0),
        "k": fused("self_attention.query_key_value", 1),
        "v": fused("self_attention.query_key_value", 2),
        "pattern": out_of("self_attention.attention_dropout"),
        "z": by_head(into("self_attention.dense")),
        "attn_out": out_of("self_attention.dense"),
        "resid_mid": out_of("self_attention"),  # BLOOM adds the residual inside attention
        "mlp_in": into("mlp"),
        "mlp_pre": out_of("mlp.dense_h_to_4h"),
        "mlp_act": into("mlp.dense_4h_to_h"),
        "mlp_out": out_of("mlp.dense_4h_to_h"),
        "resid_post": out_of(""),
    },
    rules("self_attention.dense", "mlp.dense_4h_to_h", **LLAMA_NORMS) + SEQUENTIAL,
    NO_RAW | NO_UP | UNROTATED | HIDDEN_SCORES,
)  # fmt: skip

NEOX_SITES: dict[str, Where] = {
    "resid_pre": into(""),
    "attn_in": into("attention"),
    "q_raw": fused("attention.query_key_value", 0),
    "k_raw": fused("attention.query_key_value", 1),
    **attended("attention"),
    "z": by_head(into("attention.dense")),
    "attn_out": out_of("attention"),
    "resid_mid": stream(into("post_attention_layernorm")),
    "mlp_in": into("mlp"),
    "mlp_pre": out_of("mlp.dense_h_to_4h"),
    "mlp_act": into("mlp.dense_4h_to_h"),
    "mlp_out": out_of("mlp"),
    "resid_post": out_of(""),
}


def gpt_neox(config: Any) -> Layout:
    """Its blocks are parallel or sequential, as the model's settings say."""
    parallel = config.use_parallel_residual
    mlp_reads = Equation("mlp_in", ("resid_pre" if parallel else "resid_mid",), ("post_attention_layernorm",))
    return Layout(
        "gpt_neox.embed_in", "gpt_neox.layers", "gpt_neox.final_layer_norm", ("lm_head",),
        changed(NEOX_SITES, ("resid_mid",) if parallel else ()),
        (
            *rules("attention.dense", "mlp.dense_4h_to_h", attn_norm="input_layernorm"),
            mlp_reads,
            *(PARALLEL if parallel else SEQUENTIAL),
        ),
        NO_RAW | NO_UP | (NO_MID if parallel else {}),
    )  # fmt: skip


GEMMA = Layout(
    LLAMA.embed, LLAMA.layers, LLAMA.final_norm, LLAMA.unembed,
    changed(
        LLAMA_SITES,
        attn_out_raw=out_of("self_attn"),
        attn_out=out_of("post_attention_layernorm"),
        resid_mid=stream(into("pre_feedforward_layernorm")),
        mlp_out_raw=out_of("mlp"),
        mlp_out=out_of("post_feedforward_layernorm"),
    ),
    (
        *rules("self_attn.o_proj", "mlp.down_proj", "_raw", attn_norm="input_layernorm"),
        Equation("mlp_in", ("resid_mid",), ("pre_feedforward_layernorm",)),
        Equation("attn_out", ("attn_out_raw",), ("post_attention_layernorm",)),
        Equation("mlp_out", ("mlp_out_raw",), ("post_feedforward_layernorm",)),
        *SEQUENTIAL,
    ),
)  # fmt: skip
OLMO2 = Layout(
    LLAMA.embed, LLAMA.layers, LLAMA.final_norm, LLAMA.unembed,
    changed(GEMMA.sites, resid_mid=stream(into("mlp", first=True))),
    (
        *rules("self_attn.o_proj", "mlp.down_proj", "_raw"),
        Equation("attn_in", ("resid_pre",)),
        Equation("attn_out", ("attn_out_raw",), ("post_attention_layernorm",)),
        Equation("mlp_in", ("resid_mid",)),
        Equation("mlp_out", ("mlp_out_raw",), ("post_feedforward_layernorm",)),
        *SEQUENTIAL,
    ),
)  # fmt: skip
PHI = Layout(
    LLAMA.embed, LLAMA.layers, "model.final_layernorm", LLAMA.unembed,
    changed(
        LLAMA_SITES, ("resid_mid", "mlp_up"),
        z=by_head(into("self_attn.dense")), mlp_pre=out_of("mlp.fc1"), mlp_act=into("mlp.fc2"),
    ),
    (
        *rules("self_attn.dense", "mlp.fc2", attn_norm="input_layernorm"),
        Equation("mlp_in", ("resid_pre",), ("input_layernorm",)),
        *PARALLEL,
    ),
    NO_RAW | NO_UP | NO_MID,
)  # fmt: skip
PHI3 = Layout(
    LLAMA.embed, LLAMA.layers, LLAMA.final_norm, LLAMA.unembed,
    changed(
        LLAMA_SITES,
        q_raw=by_head(columns("self_attn.qkv_proj", lambda b: (0, b.heads * b.head_dim))),
        k_raw=by_kv_head(
            columns("self_attn.qkv_proj", lambda b: (b.heads * b.head_dim, (b.heads + b.kv_heads) * b.head_dim))
        ),
        mlp_pre=columns("mlp.gate_up_proj", lambda b: (0, b.inner)),
        mlp_up=columns("mlp.gate_up_proj", lambda b: (b.inner, 2 * b.inner)),
    ),
    LLAMA.equations, NO_RAW,
)  # fmt: skip
EXPERTS = "every expert has neurons of its own, each for its own tokens; mlp_in and mlp_out surround them all"
MIXTRAL = Layout(
    LLAMA.embed, LLAMA.layers, LLAMA.final_norm, LLAMA.unembed,
    changed(LLAMA_SITES, ("mlp_pre", "mlp_up", "mlp_act")),
    (*(e for e in LLAMA.equations if e.sources != ("mlp_act",)), Equation("mlp_out", ("mlp_in",), ("mlp",))),
    NO_RAW | dict.fromkeys(("mlp_pre", "mlp_up", "mlp_act"), EXPERTS),
)  # fmt: skip

OPT_SITES: dict[str, Where] = {
    "resid_pre": into(""),
    "attn_in": into("self_attn"),
    **attended("self_attn"),
    "z": by_head(into("self_attn.out_proj")),
    "attn_out": out_of("self_attn"),
    "resid_mid": stream(per_token(into("final_layer_norm"))),
    "mlp_in": per_token(into("fc1")),
    "mlp_pre": per_token(out_of("fc1")),
    "mlp_act": per_token(into("fc2")),
    "mlp_out": per_token(out_of("fc2")),
    "resid_post": out_of(""),
}
OPT_LACKING = NO_RAW | NO_UP | UNROTATED
NO_FINAL_NORM = {"final_norm": "it norms inside its blocks and has no norm after them; read the last resid_post"}


def opt(config: Any) -> Layout:
    """It norms before or after its branches, and may narrow the stream at its ends, as the model's settings say."""
    before = config.do_layer_norm_before
    normed = before and not config._remove_final_layer_norm
    squeezed = config.word_embed_proj_dim != config.hidden_size
    post_norm = (
        Equation("resid_mid", ("resid_pre", "attn_out"), ("self_attn_layer_norm",)),
        Equation("resid_post", ("resid_mid", "mlp_out"), ("final_layer_norm",)),
    )
    return Layout(
        "model.decoder.embed_tokens", "model.decoder.layers", "model.decoder.final_layer_norm" if normed else None,
        (*(["model.decoder.project_out"] if squeezed else []), "lm_head"),
        OPT_SITES if before else changed(OPT_SITES, resid_mid=out_of("self_attn_layer_norm")),
        rules("self_attn.out_proj", "fc2", attn_norm="self_attn_layer_norm", mlp_norm="final_layer_norm") + SEQUENTIAL
        if before else rules("self_attn.out_proj", "fc2") + post_norm,
        OPT_LACKING if normed else OPT_LACKING | NO_FINAL_NORM,
    )  # fmt: skip


BERT = Layout(
    "bert.embeddings.word_embeddings", "bert.encoder.layer",
    "cls.predictions.transform.LayerNorm", ("cls.predictions.decoder",),
    {
        "resid_pre": into(""),
        "attn_in": into("attention.self"),
        **attended("attention.self"),
        "z": by_head(into("attention.output.dense")),
        "attn_out": out_of("attention.output.dense"),
        "resid_mid": out_of("attention.output"),
        "mlp_in": into("intermediate"),
        "mlp_pre": out_of("intermediate.dense"),
        "mlp_act": into("output.dense"),
        "mlp_out": out_of("output.dense"),
        "resid_post": out_of(""),
    },
    (
        *rules("attention.output.dense", "output.dense"),
        Equation("resid_mid", ("resid_pre", "attn_out"), ("attention.output.LayerNorm",)),
        Equation("resid_post", ("resid_mid", "mlp_out"), ("output.LayerNorm",)),
    ),
    NO_RAW | NO_UP | UNROTATED,
)  # fmt: skip
VIT = Layout(
    "vit.embeddings.patch_embeddings", "vit.layers", "vit.layernorm", ("classifier",),
    {
        "resid_pre": into(""),
        "attn_in": into("attention"),
        **attended("attention"),
        "z": by_head(into("attention.o_proj")),
        "attn_out": out_of("attention"),
        "resid_mid": stream(into("layernorm_after")),
        "mlp_in": into("mlp"),
        "mlp_pre": out_of("mlp.fc1"),
        "mlp_act": into("mlp.fc2"),
        "mlp_out": out_of("mlp"),
        "resid_post": out_of(""),
    },
    rules("attention.o_proj", "mlp.fc2", attn_norm="layernorm_before", mlp_norm="layernorm_after") + SEQUENTIAL,
    NO_RAW | NO_UP | UNROTATED, "batch label", 0,
)  # fmt: skip

LAYOUTS: dict[str, Layout | Callable[[Any], Layout]] = {
    "bert": BERT, "bloom": BLOOM, "gemma2": GEMMA, "gemma3_text": GEMMA, "gpt2": GPT2, "gpt_neo": GPT_NEO,
    "gpt_neox": gpt_neox, "gptj": GPTJ, "llama": LLAMA, "mistral": LLAMA, "mixtral": MIXTRAL, "olmo": LLAMA,
    "olmo2": OLMO2,
    "opt": opt, "phi": PHI, "phi3": PHI3, "qwen2": LLAMA, "qwen3": LLAMA, "starcoder2": STARCODER2, "vit": VIT,
}  # fmt: skip
