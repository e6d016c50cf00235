"""The part of `ecdsa` (MIT) that colonist_protocol.curve_pure uses; the package has no types."""

from ecdsa.curves import SECP256k1 as SECP256k1
from ecdsa.keys import SigningKey as SigningKey
