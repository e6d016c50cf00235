from collections.abc import Callable

from ecdsa.curves import Curve

class VerifyingKey:
    def to_string(self, encoding: str) -> bytes: ...

class SigningKey:
    verifying_key: VerifyingKey
    @classmethod
    def from_string(cls, string: bytes, curve: Curve) -> SigningKey: ...
    def sign_digest_deterministic(
        self,
        digest: bytes,
        hashfunc: Callable[..., object],
        sigencode: Callable[[int, int, int], tuple[bytes, bytes]],
    ) -> tuple[bytes, bytes]: ...
