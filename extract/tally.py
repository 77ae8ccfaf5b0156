"""What a run of an extraction did, as it counts it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """What a run did: counts, seconds by stage (of threads, so they may add up to more), failures.

    Attributes:
        views: that were computed.
        taken_over: views whose features were those of an older geometry, too, and were copied.
        bytes: written.
        decode_s: reading, decoding and placing.
        wait_s: in which the forward passes waited for decoded views, or for room to hand features over.
        encode_s: forward passes and casts, as far as the calling thread takes part.
        keep_s: fetching features from the device, compressing, and waiting for room to write.
        write_s: writing shards.
        failures: by (bundle id, row, layer or None for all), the reason.
    """

    views: int = 0
    taken_over: int = 0
    bytes: int = 0
    decode_s: float = 0.0
    wait_s: float = 0.0
    encode_s: float = 0.0
    keep_s: float = 0.0
    write_s: float = 0.0
    failures: dict[tuple[str, int, str | None], str] = field(default_factory=dict)
