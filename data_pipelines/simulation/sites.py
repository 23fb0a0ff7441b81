"""Names the sites of simulated cohorts: who comes there, and by what and how they are recorded.

A team can pretrain on one site and probe on another. Physiology is the same at all sites: what a label leaves in an ECG
does not differ, only how often it is there and how it is recorded. All numbers are judgement.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from data_pipelines.errors import DataError
from data_pipelines.simulation.noise import USUAL_NOISE, NoiseSources
from data_pipelines.simulation.recorder import EXACT_RECORDER, Recorder
from data_pipelines.simulation.states import USUAL_POPULATION, Population
from data_pipelines.simulation.waves import USUAL_PLACEMENT, Placement
from data_pipelines.system.near_names import meant

#: Unit of the label that only cohorts of a site have: the site's number.
UNITS_OF_SITE: Mapping[str, str] = types.MappingProxyType({"site": ""})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """Site at which simulated patients are recorded.

    Attributes:
        name: Name of the site, lower case letters and _; empty for a cohort without one.
        number: Value of the label `site`, which tells sites apart where several cohorts are joined; 0 without a site.
        description: Clause on what differs, for the card of a data set.
        population: Ages and distribution of the targets.
        noise: Noise of the surroundings.
        recorder: Recorder, with its rate, filter and gain.
        placement: Placement of the electrodes.
    """

    name: str
    number: int
    description: str
    population: Population = USUAL_POPULATION
    noise: NoiseSources = USUAL_NOISE
    recorder: Recorder = EXACT_RECORDER
    placement: Placement = USUAL_PLACEMENT


#: Site of a cohort for which none was asked.
NO_SITE = Site(name="", number=0, description="")

_SITES = (
    Site(
        name="emergency",
        number=1,
        description="an emergency department: high potassium is frequent, patients move, the mains have 60 Hz",
        population=Population(
            mean_age_years=58.0, sd_age_years=20.0, low_lvef=0.22, high_potassium=0.22, median_wedge_mmhg=13.0
        ),
        noise=NoiseSources(muscle=2.2, wander=1.4, mains=2.5, mains_share=0.7, mains_hz=60.0, moved_share=0.25),
        recorder=Recorder(sampling_rate_hz=1000, lowpass_hz=150.0, gain=1.04, log_sd_gain=0.03),
        placement=Placement(chest_turn_degrees=6.0, chest_drop=-0.15, sd_gain=0.14, sd_element=0.09),
    ),
    Site(
        name="elderly_clinic",
        number=2,
        description="a heart failure clinic for the elderly: low LVEF and high wedge pressure are frequent, recorders "
        "show nothing above 40 Hz, the baseline wanders",
        population=Population(
            mean_age_years=79.0, sd_age_years=7.0, low_lvef=0.36, high_potassium=0.17, median_wedge_mmhg=15.0
        ),
        noise=NoiseSources(muscle=1.3, wander=2.0, mains_hz=50.0),
        recorder=Recorder(sampling_rate_hz=250, lowpass_hz=40.0, gain=0.95, log_sd_gain=0.02),
        placement=Placement(chest_turn_degrees=-8.0, chest_drop=0.20, sd_gain=0.12, sd_element=0.07),
    ),
    Site(
        name="screening",
        number=3,
        description="health checks at work: young people at rest, hardly any of whom is ill",
        population=Population(
            mean_age_years=41.0, sd_age_years=11.0, low_lvef=0.03, high_potassium=0.02, median_wedge_mmhg=10.0
        ),
        noise=NoiseSources(muscle=0.6, wander=0.7, mains_share=0.15, mains_hz=50.0, moved_share=0.03),
        recorder=Recorder(sampling_rate_hz=500, lowpass_hz=150.0, gain=0.98, log_sd_gain=0.01),
        placement=Placement(chest_turn_degrees=3.0, chest_drop=-0.05),
    ),
)

#: Every site, by its name.
SITES: Mapping[str, Site] = types.MappingProxyType({site.name: site for site in _SITES})


def site_named(name: str) -> Site:
    """Returns the site of a name.

    Raises:
        DataError: There is no such site; the message lists the sites.
    """
    if name not in SITES:
        raise DataError(f"--site={name}: no such simulated site; the sites are {', '.join(SITES)}{meant(name, SITES)}")
    return SITES[name]
