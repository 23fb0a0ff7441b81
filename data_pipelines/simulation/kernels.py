"""Defines the waves of one heart beat, Gaussian kernels of a dipole, and how each condition reshapes them.

Centres and widths are in milliseconds from the R peak at a heart rate of 60/min, dipoles in mV on (X, Y, Z), X to the
left, Y to the feet, Z to the back. The normal beat is a fit to the median beat of 280 normal PTB-XL records
(R² .997; the P wave idealised).
"""

from __future__ import annotations

import numpy as np

KERNELS: tuple[str, ...] = ("P1", "P2", "Q", "R1", "R2", "S1", "S2", "ST", "T1", "T2", "U")
P1, P2, Q, R1, R2, S1, S2, ST, T1, T2, U = range(len(KERNELS))
X, Y, Z = range(3)

P_WAVE = slice(P1, P2 + 1)
QRS = slice(Q, S2 + 1)
T_WAVE = slice(T1, T2 + 1)
REPOLARISATION = slice(ST, U + 1)

NORMAL_CENTRE_MS = np.array([-160, -130, -24, -13, 0, 15, 31, 123, 250, 285, 470], np.float64)
NORMAL_WIDTH_MS = np.array([19, 19, 8, 7.5, 9, 9.3, 12, 53, 50, 34, 35], np.float64)
NORMAL_DIPOLE_MV = np.array(
    [
        [0.030, 0.060, -0.035],
        [0.050, 0.045, 0.025],
        [-0.062, -0.026, -0.149],
        [0.190, 0.055, -0.192],
        [1.156, 0.593, 0.483],
        [-0.163, -0.005, 0.451],
        [-0.014, -0.005, 0.029],
        [0.018, 0.010, -0.072],
        [0.180, 0.085, -0.215],
        [0.085, 0.065, 0.035],
        [0.0, 0.0, 0.0],
    ]
)

#: Left bundle branch block replaces the QRS (Q … S2) and makes ST and T discordant.
LBBB_CENTRE_MS = np.array([-30, -8, 20, 55, 85], np.float64)
LBBB_WIDTH_MS = np.array([12, 16, 18, 18, 18], np.float64)
LBBB_DIPOLE_MV = np.array(
    [[0.10, 0.02, -0.02], [0.45, 0.10, 0.25], [0.75, 0.15, 0.75], [0.75, 0.05, 0.75], [0.45, 0.0, 0.35]]
)
#: Dipoles added to ST, T1 and T2 in left bundle branch block.
LBBB_REPOLARISATION_MV = np.array([[-0.10, -0.02, -0.16], [-0.22, 0.02, -0.28], [-0.08, 0.0, -0.08]])

#: Right bundle branch block ends the QRS with a late wave to the right and front.
RBBB_S2_CENTRE_MS, RBBB_S2_CENTRE_SD_MS, RBBB_S2_WIDTH_MS = 55.0, 6.0, 20.0
RBBB_S2_MV = np.array([-0.42, -0.08, -0.38])
RBBB_T1_Z_MV = 0.14

#: Directions of the injury vector: anterior, inferior, lateral.
TERRITORIES = np.array([[0.25, 0.05, -0.95], [-0.2, 0.95, 0.2], [0.9, 0.1, 0.3]])

#: Dipoles of a beat from a ventricular focus, along the focus' direction and, for the turn of the loop, across it.
PVC_ALONG_MV = np.array([0.25, 0.45, 1.10, 0.55, 0.15, -0.08, -0.32, -0.14])
PVC_ACROSS_MV = np.array([0.15, 0.25, 0.0, -0.20, -0.12, 0.0, -0.05, 0.0])
PVC_WIDENING = 2.4
PVC_T_DELAY_MS = 45.0

#: Direction of fibrillation waves, which are largest in V1 and lead II.
FIBRILLATION_DIRECTION = np.array([0.35, 0.25, -0.75])

#: Number of widths before and after a wave's centre at which it begins and ends (`intervals_ms`).
WIDTHS_TO_EDGE = 2.0


def intervals_ms(centre: np.ndarray, width: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the true intervals of beats, defined on their kernels whatever the amplitudes.

    The P wave starts two widths before the earlier of P1 and P2. The QRS runs from two widths before the earliest of
    its kernels to two widths after the latest. The T wave ends two widths after the later of T1 and T2. In a normal
    beat at 60/min: PR 158, QRS 95, QT 393 ms.

    Args:
        centre: Centres of the kernels, `f64[n, kernels]`, ms.
        width: Widths of the kernels, `f64[n, kernels]`, ms.

    Returns:
        `pr_ms`, `qrs_ms`, `qt_ms`: `f64[n]`.
    """
    start, stop = centre - WIDTHS_TO_EDGE * width, centre + WIDTHS_TO_EDGE * width
    qrs_start = start[:, QRS].min(axis=1)
    return {
        "pr_ms": qrs_start - start[:, P_WAVE].min(axis=1),
        "qrs_ms": stop[:, QRS].max(axis=1) - qrs_start,
        "qt_ms": stop[:, T_WAVE].max(axis=1) - qrs_start,
    }
