"""Turns the states of patients into Gaussian waves of their beats on the eight stored leads."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.records import FEMALE, STORED_LEADS
from data_pipelines.simulation import kernels as k
from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.rhythm import NORMAL, PAC, PVC
from data_pipelines.simulation.states import States

#: Matrix of Dower 1980: rows are the stored leads, columns X Y Z. It is kept apart from the training library's, and
#: perturbed for every patient below: an augmentation that turned the dipole by the very matrix that drew it would
#: invert the simulation.
_DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
#: Mean gain of real chests over Dower's torso: median lead SD (0.7–40 Hz) of 297 normal PTB-XL records over that of
#: this cohort without these gains. V2 and lead I are small through Dower's matrix.
_MEAN_LEAD_GAIN = np.array([1.32, 1.08, 0.96, 1.46, 1.17, 1.11, 1.11, 1.15])
_NUM_LEADS, _NUM_KERNELS = len(STORED_LEADS), len(k.KERNELS)
_LIMB_LEADS = 2

#: Standard deviation of what a visit adds to a patient's own deviations (electrodes, posture), as a share of theirs.
_VISIT_SHARE = 0.25

_LOG_SD_GAIN = {"P": 0.28, "QRS": 0.24, "T": 0.33}
_LOG_SD_KERNEL_GAIN = 0.15
_LOG_SD_WIDTH = {"P": 0.10, "QRS": 0.07, "T": 0.08}
#: Additive deviations of the dipole on each axis, mV. If patients differed by factors only, a wave that is small in
#: everyone would betray whatever adds to it: the wedge pressure's P wave gave AUROC .948 instead of .817.
_SD_DIPOLE_MV = np.array([0.012, 0.012, 0.03, 0.05, 0.12, 0.09, 0.06, 0.02, 0.045, 0.03, 0.0])
_SD_T_CENTRE_MS, _SD_PR_MS = 16.0, 18.0
#: Standard deviation of the angle of a rotation about an axis of any direction, by what is rotated.
_SD_ROTATION_DEGREES = {"heart": 14.0, "T": 11.0, "P": 10.0}
_RESIDUAL_OF_NORM = np.array([0.05] * _LIMB_LEADS + [0.13] * (_NUM_LEADS - _LIMB_LEADS))
_FEMALE_QRS_GAIN, _FEMALE_QRS_WIDTH = 0.89, 0.96
#: Share of a late QRS's delay by which repolarisation ends later.
_QT_PER_QRS = 0.5
_NORMAL_QRS_END_MS = 55.0
_LARGEST_T_GAIN, _SMALLEST_T_GAIN = 2.8, 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Placement of the electrodes at a site, as the matrix by which leads see the dipole: its mean and its spread.

    Attributes:
        chest_turn_degrees: Angle by which the mean vectors of V1 … V6 are turned about the body's axis; above 0, from
            the front (−Z) to the left (X).
        chest_drop: Number that is added to the share Y (to the feet) of the mean vectors of V1 … V6; below 0 for
            electrodes that lie too high.
        sd_gain: Standard deviation of every lead's gain over patients, as a share.
        sd_element: Standard deviation of every element of the matrix over patients.
    """

    chest_turn_degrees: float = 0.0
    chest_drop: float = 0.0
    sd_gain: float = 0.10
    sd_element: float = 0.05

    def mean_matrix(self) -> np.ndarray:
        """Returns the mean matrix before the leads' gains: rows are the stored leads, columns X Y Z, `f64[leads, 3]`.

        It is that of Dower 1980 unless chest electrodes are turned or dropped.
        """
        matrix, chest = _DOWER.copy(), slice(_LIMB_LEADS, None)
        angle = np.deg2rad(self.chest_turn_degrees)
        x, z = _DOWER[chest, 0], _DOWER[chest, 2]
        matrix[chest, 0] = np.cos(angle) * x - np.sin(angle) * z
        matrix[chest, 1] += self.chest_drop
        matrix[chest, 2] = np.cos(angle) * z + np.sin(angle) * x
        return matrix


#: Placement of the electrodes in a cohort without a site.
USUAL_PLACEMENT = Placement()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Templates:
    """Beats of `n` records by kind (`NORMAL`, `PAC`, `PVC`), at an RR interval of 1 s.

    Attributes:
        centre_ms: `f64[n, kind, kernels]`, centres of the kernels from the R peak.
        width_ms: `f64[n, kind, kernels]`, widths of the kernels.
        lead_mv: `f64[n, kind, leads, kernels]`, amplitudes of the kernels on the leads.
        fibrillation_mv: `f64[n, leads]`, amplitude of the fibrillation waves' fundamental; 0 without atrial
            fibrillation.
    """

    centre_ms: np.ndarray
    width_ms: np.ndarray
    lead_mv: np.ndarray
    fibrillation_mv: np.ndarray


@dataclasses.dataclass(kw_only=True)
class _Beat:
    centre: np.ndarray
    width: np.ndarray
    dipole: np.ndarray


def at_rr(centre_ms: np.ndarray, width_ms: np.ndarray, rr_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernels at another RR interval: ST, T and U are stretched about 80 ms by the square root of RR (Bazett).

    Args:
        centre_ms: Centres at an RR interval of 1 s, `f64[..., kernels]`.
        width_ms: Widths at an RR interval of 1 s, `f64[..., kernels]`.
        rr_s: RR interval, `f64[...]`.

    Returns:
        Centres and widths at that RR interval.
    """
    stretch = np.sqrt(rr_s)[..., None]
    late = np.arange(_NUM_KERNELS) >= k.ST
    return np.where(late, 80 + (centre_ms - 80) * stretch, centre_ms), np.where(late, width_ms * stretch, width_ms)


def draw_templates(draws: Draws, states: States, placement: Placement = USUAL_PLACEMENT) -> Templates:
    """Draws the beats of records from the states of their patients.

    Args:
        draws: Random numbers of the records.
        states: States of the patients.
        placement: Placement of the electrodes.
    """
    beat = _conduction(draws, states)
    _identity(draws, states, beat)
    _hypertrophy(states, beat)
    _ischaemia(draws, states, beat)
    _low_ejection_fraction(states, beat)
    _potassium(states, beat)
    _wedge_pressure(states, beat)
    qrs_end = beat.centre[:, k.S2] + k.WIDTHS_TO_EDGE * beat.width[:, k.S2]
    beat.centre[:, k.REPOLARISATION] += _QT_PER_QRS * np.maximum(qrs_end - _NORMAL_QRS_END_MS, 0)[:, None]
    beat.dipole[states.af, k.P_WAVE] = 0

    kinds = {NORMAL: beat, PAC: _premature_atrial(beat), PVC: _premature_ventricular(draws, beat)}
    leads = _leads(draws, placement)
    dipole = np.stack([kinds[kind].dipole for kind in sorted(kinds)], axis=1)
    return Templates(
        centre_ms=np.stack([kinds[kind].centre for kind in sorted(kinds)], axis=1),
        width_ms=np.stack([kinds[kind].width for kind in sorted(kinds)], axis=1),
        lead_mv=_seen_from(leads, _rotated(draws, dipole)) + _residual(draws, dipole),
        fibrillation_mv=_fibrillation(draws, states, leads),
    )


def _identity_normal(draws: Draws, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Draws N(0, 1) for each patient, and adds a quarter of another such draw at each visit: `f64[n, *shape]`."""
    return draws.lasting_normal(name, shape) + _VISIT_SHARE * draws.normal(name, shape)


def _conduction(draws: Draws, states: States) -> _Beat:
    n = len(states.lvef)
    beat = _Beat(
        centre=np.tile(k.NORMAL_CENTRE_MS, (n, 1)),
        width=np.tile(k.NORMAL_WIDTH_MS, (n, 1)),
        dipole=np.tile(k.NORMAL_DIPOLE_MV, (n, 1, 1)),
    )
    beat.centre[states.lbbb, k.QRS] = k.LBBB_CENTRE_MS
    beat.width[states.lbbb, k.QRS] = k.LBBB_WIDTH_MS
    beat.dipole[states.lbbb, k.QRS] = k.LBBB_DIPOLE_MV
    beat.dipole[states.lbbb, k.ST : k.T2 + 1] += k.LBBB_REPOLARISATION_MV
    late = k.RBBB_S2_CENTRE_MS + k.RBBB_S2_CENTRE_SD_MS * draws.lasting_normal("rbbb delay")
    beat.centre[states.rbbb, k.S2] = late[states.rbbb]
    beat.width[states.rbbb, k.S2] = k.RBBB_S2_WIDTH_MS
    beat.dipole[states.rbbb, k.S2] = k.RBBB_S2_MV
    beat.dipole[states.rbbb, k.T1, k.Z] += k.RBBB_T1_Z_MV
    return beat


def _identity(draws: Draws, states: States, beat: _Beat) -> None:
    """Changes beats in place by deviations of the patient that have nothing to do with disease."""
    female = states.sex == FEMALE
    for wave, where in (("P", k.P_WAVE), ("QRS", k.QRS), ("T", k.REPOLARISATION)):
        gain = np.exp(_LOG_SD_GAIN[wave] * _identity_normal(draws, f"gain {wave}"))
        width = np.exp(_LOG_SD_WIDTH[wave] * _identity_normal(draws, f"width {wave}"))
        if wave == "QRS":
            gain *= np.where(female, _FEMALE_QRS_GAIN, 1.0)
            width *= np.where(female, _FEMALE_QRS_WIDTH, 1.0)
            beat.centre[:, where] *= width[:, None]
        beat.dipole[:, where] *= gain[:, None, None]
        beat.width[:, where] *= width[:, None]
    kernel_gain = np.exp(_LOG_SD_KERNEL_GAIN * _identity_normal(draws, "kernel gain", (_NUM_KERNELS,)))
    beat.dipole *= kernel_gain[:, :, None]
    beat.dipole += _SD_DIPOLE_MV[:, None] * _identity_normal(draws, "dipole", (_NUM_KERNELS, 3))
    beat.centre[:, k.T_WAVE] += _SD_T_CENTRE_MS * _identity_normal(draws, "T centre")[:, None]
    beat.centre[:, k.P_WAVE] -= _SD_PR_MS * _identity_normal(draws, "PR")[:, None]


def _hypertrophy(states: States, beat: _Beat) -> None:
    grade = states.lvh_grade
    beat.dipole[:, [k.R2, k.S1]] *= (1 + 0.45 * grade)[:, None, None]
    beat.dipole[:, k.T1, k.X] -= 0.16 * grade
    beat.dipole[:, k.T1, k.Z] += 0.10 * grade
    beat.dipole[:, k.ST, k.X] -= 0.06 * grade


def _ischaemia(draws: Draws, states: States, beat: _Beat) -> None:
    injury = states.st_deviation_mv[:, None] * k.TERRITORIES[states.territory]
    beat.dipole[:, k.ST] += injury
    beat.dipole[:, k.T1] -= 0.8 * injury
    # An infarct is electrically silent, so the first forces of the QRS point away from it.
    silent = np.abs(states.st_deviation_mv) * draws.uniform("infarct")
    beat.dipole[:, k.Q : k.R1 + 1] -= (silent[:, None] * k.TERRITORIES[states.territory])[:, None]


def _low_ejection_fraction(states: States, beat: _Beat) -> None:
    hs = states.dysfunction * states.lvef_strength
    _widen(beat, k.QRS, 1 + 0.06 * hs)
    beat.dipole[:, k.QRS, k.Z] *= (1 + 0.072 * hs)[:, None]
    beat.dipole[:, k.QRS, : k.Z] *= np.maximum(1 - 0.06 * hs, 0.5)[:, None, None]
    beat.dipole[:, k.T_WAVE] *= np.maximum(1 - 0.15 * hs, _SMALLEST_T_GAIN)[:, None, None]
    beat.dipole[:, k.T1, k.X] -= 0.072 * hs
    beat.dipole[:, k.T1, k.Z] += 0.048 * hs
    beat.dipole[:, k.P2] *= (1 + 0.21 * hs)[:, None]


def _potassium(states: States, beat: _Beat) -> None:
    above_normal = (states.potassium - 4.2) * states.potassium_strength
    beat.dipole[:, k.T_WAVE] *= np.minimum(np.exp(0.28 * above_normal), _LARGEST_T_GAIN)[:, None, None]
    beat.width[:, k.T_WAVE] *= np.exp(-0.15 * above_normal)[:, None]
    beat.centre[:, k.T_WAVE] -= 4 * above_normal[:, None]
    beat.centre[:, k.T1] += 6 * above_normal

    above_five = np.maximum(states.potassium - 5, 0) * states.potassium_strength
    beat.dipole[:, k.P_WAVE] *= np.exp(-0.18 * above_five)[:, None, None]
    beat.centre[:, k.P_WAVE] -= 6 * above_five[:, None]
    _widen(beat, k.QRS, 1 + 0.05 * above_five)

    low = np.maximum(3.9 - states.potassium, 0) * states.potassium_strength
    beat.dipole[:, k.U, k.X] += 0.06 * low


def _wedge_pressure(states: States, beat: _Beat) -> None:
    ws = np.maximum((states.wedge_pressure - 12) / 10, -0.5) * states.wedge_strength
    beat.dipole[:, k.P2, k.Z] += 0.0125 * ws
    beat.dipole[:, k.P2, k.X] += 0.005 * ws
    beat.centre[:, k.P2] += 2.5 * ws
    beat.width[:, k.P_WAVE] *= (1 + 0.03 * ws)[:, None]
    beat.dipole[:, k.T1, k.X] -= 0.015 * ws
    beat.dipole[:, k.S2] += 0.04 * ws[:, None] * np.array([-0.8, 0.2, -0.4])


def _widen(beat: _Beat, where: slice, factor: np.ndarray) -> None:
    beat.centre[:, where] *= factor[:, None]
    beat.width[:, where] *= factor[:, None]


def _premature_atrial(beat: _Beat) -> _Beat:
    dipole = beat.dipole.copy()
    dipole[:, k.P1] *= -1  # The atria are not activated from the sinus node.
    return _Beat(centre=beat.centre, width=beat.width, dipole=dipole)


def _premature_ventricular(draws: Draws, beat: _Beat) -> _Beat:
    focus = _unit(draws.lasting_normal("pvc focus", (3,)))
    across = _unit(np.cross(focus, draws.lasting_normal("pvc turn", (3,))))
    gain = np.exp(0.2 * draws.lasting_normal("pvc gain"))[:, None]
    along, turned = gain * k.PVC_ALONG_MV, gain * k.PVC_ACROSS_MV
    pvc = _Beat(centre=beat.centre.copy(), width=beat.width.copy(), dipole=np.zeros_like(beat.dipole))
    pvc.centre[:, k.QRS] = k.PVC_WIDENING * k.NORMAL_CENTRE_MS[k.QRS]
    pvc.width[:, k.QRS] = k.PVC_WIDENING * k.NORMAL_WIDTH_MS[k.QRS]
    pvc.centre[:, k.REPOLARISATION] += k.PVC_T_DELAY_MS
    pvc.dipole[:, k.Q : k.U] = along[:, :, None] * focus[:, None, :] + turned[:, :, None] * across[:, None, :]
    return pvc


def _unit(vector: np.ndarray) -> np.ndarray:
    x, y, z = vector[:, 0], vector[:, 1], vector[:, 2]
    return vector / np.sqrt(x * x + y * y + z * z)[:, None]


def _rotated(draws: Draws, dipole: np.ndarray) -> np.ndarray:
    """Returns the dipoles rotated: the heart in the chest, and the P and T loops against the QRS.

    Args:
        draws: Random numbers of the records.
        dipole: Dipoles of the kernels, `f64[n, kind, kernels, 3]`, mV.

    Returns:
        The rotated dipoles, `f64[n, kind, kernels, 3]`, mV.
    """
    turned = dipole.copy()
    for name, where in (("P", k.P_WAVE), ("T", k.REPOLARISATION), ("heart", slice(None))):
        each_axis = np.deg2rad(_SD_ROTATION_DEGREES[name]) / np.sqrt(3)
        angles = each_axis * _identity_normal(draws, f"rotation {name}", (3,))
        for axis in range(3):
            first, second = (axis + 1) % 3, (axis + 2) % 3
            cosine, sine = np.cos(angles[:, axis])[:, None, None], np.sin(angles[:, axis])[:, None, None]
            a, b = turned[:, :, where, first].copy(), turned[:, :, where, second].copy()
            turned[:, :, where, first] = cosine * a - sine * b
            turned[:, :, where, second] = sine * a + cosine * b
    return turned


def _leads(draws: Draws, placement: Placement) -> np.ndarray:
    """Returns a matrix for each record, `f64[n, leads, 3]`: the mean one, perturbed by patient and slightly by visit.

    Args:
        draws: Random numbers of the records.
        placement: Placement of the electrodes.
    """
    gain = 1 + placement.sd_gain * _identity_normal(draws, "lead gain", (_NUM_LEADS,))
    elements = placement.sd_element * _identity_normal(draws, "lead elements", (_NUM_LEADS, 3))
    return (_MEAN_LEAD_GAIN * gain)[:, :, None] * (placement.mean_matrix() + elements)


def _seen_from(leads: np.ndarray, dipole: np.ndarray) -> np.ndarray:
    """Returns the dipoles projected onto the leads.

    The sum over axes is written out, since a matrix product may round differently by the size of the batch.

    Args:
        leads: Matrix of each record, `f64[n, leads, 3]`.
        dipole: Dipoles of the kernels, `f64[n, kind, kernels, 3]`, mV.

    Returns:
        Amplitudes of the kernels on the leads, `f64[n, kind, leads, kernels]`, mV.
    """
    by_axis = [leads[:, None, :, None, axis] * dipole[:, :, None, :, axis] for axis in range(3)]
    return by_axis[0] + by_axis[1] + by_axis[2]


def _residual(draws: Draws, dipole: np.ndarray) -> np.ndarray:
    """Returns the part of the leads that no dipole explains (sources near the chest electrodes).

    It is a share of each kernel on each lead, `f64[n, kind, leads, kernels]`, mV.

    Args:
        draws: Random numbers of the records.
        dipole: Dipoles of the kernels, `f64[n, kind, kernels, 3]`, mV.
    """
    x, y, z = dipole[..., 0], dipole[..., 1], dipole[..., 2]
    norm = np.sqrt(x * x + y * y + z * z)[:, :, None, :]
    deviation = _identity_normal(draws, "residual", (_NUM_LEADS, _NUM_KERNELS))[:, None]
    return (_MEAN_LEAD_GAIN * _RESIDUAL_OF_NORM)[:, None] * deviation * norm


def _fibrillation(draws: Draws, states: States, leads: np.ndarray) -> np.ndarray:
    size = np.where(states.af, 0.045 * np.exp(0.35 * draws.normal("fibrillation size")), 0.0)
    x, y, z = k.FIBRILLATION_DIRECTION
    return size[:, None] * (leads[..., 0] * x + leads[..., 1] * y + leads[..., 2] * z)
