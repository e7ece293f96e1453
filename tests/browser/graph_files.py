"""Small runs of `microtome graph` and `microtome patch`: what their files hold, and folders of them."""

import json
from pathlib import Path

from microtome.store.records import Run
from tests.browser.sample import HOSTILE, write_run

TOKENS = ["<bos>", "The", " capital", " of", " Texas", "\n"]
PROMPT = "".join(TOKENS[1:])


def node(id: str, layer: str, position: int, kind: str, **more: object) -> dict:
    plain = {"feature": 0, "token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0}
    return {"node_id": id, "layer": layer, "ctx_idx": position, "feature_type": kind, "jsNodeId": id, "clerp": "",
            "influence": None, "activation": None} | plain | more  # fmt: skip


def feature(layer: int, index: int, position: int, influence: float, clerp: str = "") -> dict:
    return node(
        f"{layer}_{index}_{position}", str(layer), position, "cross layer transcoder",
        influence=influence, activation=2.5, clerp=clerp,
    )  # fmt: skip


def link(source: str, target: str, weight: float) -> dict:
    return {"source": source, "target": target, "weight": weight}


def small_graph() -> dict:
    """Two tokens, three components, an error and two targets.

    Of the likelier target's row (.6), 3/4 goes to 2_3_4 and 1/4 to the error; the other's goes to 2_12_5 alone.
    """
    nodes = [
        node("E_1_1", "E", 1, "embedding", influence=0.2), node("E_4_4", "E", 4, "embedding", influence=0.3),
        feature(0, 7, 1, 0.6, "says capital"), feature(2, 3, 4, 0.5), feature(2, HOSTILE, 5, 0.7),
        node("0_1_4", "1", 4, "mlp reconstruction error", influence=0.8),
        node("3_65_5", "3", 5, "logit", clerp='Output " Austin" (p=0.6)', token_prob=0.6, is_target_logit=True),
        node("3_66_5", "3", 5, "logit", clerp='Output " Dallas" (p=0.2)', token_prob=0.2),
    ]  # fmt: skip
    links = [
        link("E_1_1", "0_7_1", 2.0), link("E_4_4", "2_3_4", 3.0), link("0_7_1", "2_3_4", -1.0),
        link("2_3_4", "3_65_5", 6.0), link("0_1_4", "3_65_5", -2.0), link("E_4_4", f"2_{HOSTILE}_5", 1.0),
        link(f"2_{HOSTILE}_5", "3_66_5", 0.5),
    ]  # fmt: skip
    metadata = {"slug": "texas", "scan": "toy", "prompt_tokens": TOKENS, "prompt": PROMPT,
                "node_threshold": 0.8, "scores": {"replacement": 0.41, "completeness": 0.77}}  # fmt: skip
    return {"metadata": metadata, "qParams": {"supernodes": [["Capitals", "0_7_1", "nowhere"]]},
            "nodes": nodes, "links": links}  # fmt: skip


def crowd(layers: int = 10, count: int = 100, fan: int = 20) -> dict:
    """A graph of 1,000 components and 20,000 links, to see that it is still drawn."""
    nodes = [node(f"E_0_{p}", "E", p, "embedding", influence=0.1) for p in range(12)]
    nodes += [
        feature(layer, index, index % 12, 0.2 + 0.8 * index / count)
        for layer in range(layers)
        for index in range(count)
    ]
    nodes.append(node("10_1_11", "10", 11, "logit", clerp="Output", token_prob=0.9, is_target_logit=True))
    links, before = [], [f"E_0_{p}" for p in range(12)]
    for layer in range(layers):
        now = [f"{layer}_{i}_{i % 12}" for i in range(count)]
        links += [
            link(before[(i * 7 + j) % len(before)], id, (-1) ** j * (1 + (i * j) % 9) / 9)
            for i, id in enumerate(now)
            for j in range(min(fan, len(before)))
        ]
        before = now
    links += [link(id, "10_1_11", 1.0) for id in before]
    tokens = [f" word{p}" for p in range(12)]
    return {"metadata": {"prompt_tokens": tokens, "prompt": "".join(tokens)}, "nodes": nodes, "links": links}


def small_patch() -> dict:
    sites = [f"resid_post.{layer}" for layer in range(3)]
    effect = [[round((layer - 1) * 0.5 + position * 0.1, 3) for position in range(6)] for layer in range(3)]
    return {"schema": "microtome/patch/1", "sites": sites, "tokens": TOKENS, "effect": effect,
            "clean": "The capital of Texas", "corrupt": "The capital of Ohio", "measure": "logit difference"}  # fmt: skip


def record(command: str, **arguments: object) -> Run:
    return Run(
        command=command, arguments=arguments, model="toy", site="", created="2026-09-01T08:00:00Z", version="0.1.0",
        stage="done",
    )  # fmt: skip


def write(folder: Path, command: str, held: object, **arguments: object) -> Path:
    record(command, **arguments).write(folder)
    (folder / f"{command}.json").write_text(json.dumps(held))
    return folder


def write_all(root: Path) -> Path:
    """A graph with the dictionary of its layer 2 beside it, a patching grid, and both kinds cut off."""
    write_run(root / "layer-2")
    write(root / "texas", "graph", small_graph(), prompt=PROMPT, dictionaries=["layer-2/dictionary"])
    write(root / "crowd", "graph", crowd())
    write(root / "moved", "patch", small_patch())
    record("graph").write(root / "stopped")
    return root
