"""Lists the SNOMED CT codes of the PhysioNet/CinC Challenge 2021 and the 26 classes that it scored.

Source: `dx_mapping_scored.csv`, `weights.csv` and `weights_abbreviations.csv` of
https://github.com/physionetchallenges/evaluation-2021, which score 30 codes; four pairs count as one class each.
Reyna et al., "Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/Computing in Cardiology
Challenge 2021", Computing in Cardiology 48 (2021).
"""

from __future__ import annotations

import types

# Each row has the name in the challenge's table of weights, its codes and their meaning, in the order of that table.
_SCORED = (
    ("AF", ("164889003",), "atrial fibrillation"),
    ("AFL", ("164890007",), "atrial flutter"),
    ("BBB", ("6374002",), "bundle branch block"),
    ("Brady", ("426627000",), "bradycardia"),
    ("CLBBB|LBBB", ("733534002", "164909002"), "(complete) left bundle branch block"),
    ("CRBBB|RBBB", ("713427006", "59118001"), "(complete) right bundle branch block"),
    ("IAVB", ("270492004",), "first degree AV block"),
    ("IRBBB", ("713426002",), "incomplete right bundle branch block"),
    ("LAD", ("39732003",), "left axis deviation"),
    ("LAnFB", ("445118002",), "left anterior fascicular block"),
    ("LPR", ("164947007",), "prolonged PR interval"),
    ("LQRSV", ("251146004",), "low QRS voltages"),
    ("LQT", ("111975006",), "prolonged QT interval"),
    ("NSIVCB", ("698252002",), "nonspecific intraventricular conduction disorder"),
    ("NSR", ("426783006",), "sinus rhythm"),
    ("PAC|SVPB", ("284470004", "63593006"), "premature atrial contraction, supraventricular premature beats"),
    ("PR", ("10370003",), "pacing rhythm"),
    ("PRWP", ("365413008",), "poor R wave progression"),
    ("PVC|VPB", ("427172004", "17338001"), "premature ventricular contractions, ventricular premature beats"),
    ("QAb", ("164917005",), "abnormal Q wave"),
    ("RAD", ("47665007",), "right axis deviation"),
    ("SA", ("427393009",), "sinus arrhythmia"),
    ("SB", ("426177001",), "sinus bradycardia"),
    ("STach", ("427084000",), "sinus tachycardia"),
    ("TAb", ("164934002",), "abnormal T wave"),
    ("TInv", ("59931005",), "T wave inversion"),
)

#: The 26 scored classes, in the order of the challenge's weights.
SCORED_CLASSES: tuple[str, ...] = tuple(name for name, _, _ in _SCORED)

#: Scored class of each of the 30 scored codes.
SCORED_CLASS_OF_CODE = types.MappingProxyType({code: name for name, codes, _ in _SCORED for code in codes})
