from ecdsa.ellipticcurve import CurveFp, PointJacobi

class Curve:
    order: int
    curve: CurveFp
    generator: PointJacobi

SECP256k1: Curve
