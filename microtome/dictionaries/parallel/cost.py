"""What a step of a divided TopK dictionary costs each rank: bytes held, bytes that travel, and arithmetic."""

from dataclasses import dataclass

from microtome.dictionaries.parallel.group import Group


@dataclass(frozen=True)
class Cost:
    """For one rank. Bytes are those of float32; traffic is per step, as numbers handed to the network library.

    held       4 (parameters + gradients + two moments) + 8 a latent for the count of silence
    candidates a row: min(k, n / ranks) values sent, and as many received from each rank, its own included
    """

    parameters: int
    held_bytes: int
    sent_candidates_bytes: int
    received_candidates_bytes: int
    reconstruction_bytes: int
    gradient_bytes: int
    flops: int


def cost_of(width: int, d: int, k: int, rows: int, *, latent: int, data: int = 1) -> Cost:
    """The cost of a step on `rows` rows in all, for one of `latent` x `data` ranks. Raises Refusal as `share` does.

    Arithmetic: 2 d n' for each row's encoder product with the n' latents held; for the k / latent entries that a row
    keeps here on average, 2 d each for decoding, for the slope of their values, and for the gradients of both weights
    and of the encoder's input; 12 for each parameter that Adam moves.
    """
    n, here = Group(None, latent, 0).share(width), -(-rows // data)
    parameters = n * (2 * d + 1) + d
    candidates = 4 * here * min(k, n)
    sparse = 5 * 2 * d * here * k // latent
    return Cost(
        parameters=parameters,
        held_bytes=4 * 4 * parameters + 8 * n,
        sent_candidates_bytes=candidates,
        received_candidates_bytes=candidates * latent,
        reconstruction_bytes=4 * here * d,
        gradient_bytes=4 * (n * (2 * d + 1)) * (data > 1) + 4 * d,
        flops=2 * here * d * n + sparse + 12 * parameters,
    )
