"""Names that are in use for the rate, unit, scale, leads and axes of samples, and the parsing of such names.

Names are compared without regard to case, separators and words without information (`ecg`, `signal`, `data`, …), and a
unit at the end of a name is the unit of its value: `Fs`, `ECG_fs`, `sampling_rate_hz` and `samplingRate [Hz]` are
rates, `dt_ms` is a sampling interval in milliseconds, `uV_per_bit` a step in microvolts.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import types
from collections.abc import Mapping


class Kind(enum.Enum):
    """The subject of a statement; the value is its name in messages."""

    RATE = "rate"
    INTERVAL = "sampling interval"
    TIMES = "times"
    DURATION = "duration"
    NUM_SAMPLES = "number of samples"
    NUM_LEADS = "number of leads"
    INDEX = "numbers of the samples"
    UNIT = "unit"
    GAIN = "gain"
    STEP = "size of a step"
    ZERO = "zero"
    LEADS = "lead names"
    ORIENTATION = "orientation"
    TIME_UNIT = "unit of times"


#: Names for each kind, in lower case and without separators. The names after a `|` have other uses too, and count only
#: where their value cannot mean anything else.
_WORDS: Mapping[Kind, str] = types.MappingProxyType(
    {
        Kind.RATE: """
            fs sr srate sfreq samplingrate samplingfrequency samplingfreq samplerate samplefrequency samplefreq sampfreq
            samprate samplesrate samplespersecond samplespersec samplessec sps frequency freq rate hz khz fsamp fsample
            fsampling sampling acquisitionrate acquisitionfrequency digitizationrate samplingspeed abtastrate
            abtastfrequenz frecuenciamuestreo frecuenciademuestreo frequenciadeamostragem taxadeamostragem
            frequenciaamostragem frequencedechantillonnage tickrate nominalsrate acqrate acqfreq acquisitionfreq adcrate
            adcfreq adcfrequency adcsamplingrate sampfrequency samplehz hertz nsamppersec numsamplespersecond
            nsamplespersecond numbersamplespersecond | sf""",
        Kind.INTERVAL: """
            dt deltat samplinginterval sampleinterval samplingperiod sampleperiod samplingtime sampletime timestep tstep
            timeinterval intersampleinterval abtastintervall isi wfincrement xincrement xinc xdelta samplespacing
            sampledt timeresolution samplingresolution samplingstep sampint sampinterval
            | interval period ts increment""",
        Kind.TIMES: """
            t time times timestamp timestamps timevector timeaxis timevec tvec timecolumn timeseconds seconds
            elapsedtime zeit tiempo tempo temps elapsed clocktime unixtime datetime clock ms msec milliseconds sec
            microseconds | ts s date us""",
        Kind.DURATION: """
            duration durationseconds recordingduration recordduration recordlength recordinglength lengthseconds
            lengthsec seconds dauer""",
        Kind.NUM_SAMPLES: """
            numsamples nsamples numberofsamples samplecount siglen signallength nsamp numsamp npts samplesperlead
            samplesperchannel numpoints npoints | samples len""",
        Kind.NUM_LEADS: """
            nleads numleads numberofleads nsig nsignals numchannels nchannels numberofchannels nchan numchan nchans
            channelcount leadcount nbchan""",
        Kind.INDEX: """
            index idx sample samples samplenumber sampleno samplenum sampleindex samplenr sampleid n no nr row rownumber
            rowid # obs unnamed0""",
        Kind.UNIT: """
            unit units amplitudeunit amplitudeunits physicalunit physicalunits voltageunit voltageunits
            physicaldimension physicaldimensions physdim physunit physunits signalunit signalunits sigunit sigunits
            unitofmeasure uom yunit yunits valueunit leadunits leadunit channelunit channelunits amplitudeuom chunits
            einheit unidad unidades unidade unite unitstring unittext unitlabel unitname chanunits chanunit ampunit
            ampunits unitofamplitude measurementunit engineeringunits sampleunit sampleunits""",
        Kind.GAIN: "gain gains adcgain adcgains channelgain channelgains leadgain leadgains siggain",
        Kind.STEP: """
            lsb lsbs lsbvalue lsbsize lsbweight resolution scale scales scalefactor scalefactors scaling scalingfactor
            bitvalue bitresolution bitweight amplituderesolution amplitudescale amplitudescalefactor conversionfactor
            calibrationfactor stepsize quantizationstep quantisationstep quantum voltagestep channelsensitivity
            sensitivity multiplier unitsperbit amplitudeunitsperbit unitperbit slope sclslope leadresolution
            voltageresolution signalresolution stepuv stepmv stepnv scalefac amplitudeperbit""",
        Kind.ZERO: """
            baseline baselines adczero adcbaseline zero zerolevel zeropoint zerooffset adcoffset dcoffset offset offsets
            intercept sclinter""",
        Kind.LEADS: """
            leads leadname leadnames leadorder leadlist leadlabels leadids leadid channelnames channelname channelorder
            channellist channellabels chnames chname chlabels signame signames signalname signalnames channeltitle
            channeltitles derivations derivationnames ableitungen derivaciones derivacoes electrodenames leadsnames
            leadsorder leadsequence | lead channels channel labels label names electrodes electrode columns columnnames
            header signals derivation titles chans traces chlabel chanlabels block0items chanlocs name colnames features
            featurenames variables""",
        Kind.ORIENTATION: """
            | orientation layout axes axisorder dims dimensions dimensionorder dimorder shapeorder order dimnames
            axisnames dimlabels arrayorder datalayout dataformat shape format""",
        Kind.TIME_UNIT: "timeunit timeunits timesunit xunit xunits intervalunit dtunit timestampunit isiunits",
    }
)


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


# A name with one of these words is about something other than the ECG.
_OTHER_THINGS = _set_of(
    """
    ppg pleth plethysmogram resp respiration respiratory breathing spo2 sao2 abp bp art pressure eeg eog emg eda gsr
    acc accel accelerometer gyro gyroscope imu pcg scg bcg temperature filter filters filtering filtered notch
    highpass lowpass bandpass cutoff powerline mains heart hr hrv beat beats annotation annotations rpeaks peaks qrs
    rr patient subject demographics screen display paper audio video"""
)

# Words that add no information to a name.
_EMPTY = _set_of("ecg ekg signal signals sig data raw value values of the a in is my all ecgs waveform wave")

# Words that mark a rate in a longer name, such as the original rate of resampled data.
_RATE_WORDS = _set_of("fs srate sfreq sps samplerate samplingrate samplefreq sampfreq")

_UNITS_OF_TIME = types.MappingProxyType(
    {"s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "msecs": 1e-3}
    | {"millisecond": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "usec": 1e-6}
    | {"microsecond": 1e-6, "microseconds": 1e-6, "ns": 1e-9, "nanosecond": 1e-9, "nanoseconds": 1e-9}
    | {"min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0}
    | {"sekunden": 1.0, "segundos": 1.0, "secondes": 1.0}
)
_UNITS_OF_RATE = types.MappingProxyType(
    {"hz": 1.0, "hertz": 1.0, "sps": 1.0, "khz": 1e3, "kilohertz": 1e3, "ksps": 1e3, "mhz": 1e6}
    | {"1/s": 1.0, "/s": 1.0, "s-1": 1.0, "samples/s": 1.0, "samples/sec": 1.0, "samples/second": 1.0, "sample/s": 1.0}
    | {"samples per second": 1.0, "samplespersecond": 1.0, "per second": 1.0}
)
# The micro sign and the Greek letter are two characters that look alike; both are in use.
_VOLTAGES = types.MappingProxyType(
    {
        "mV": ("mv", "millivolt", "millivolts", "mvolt", "mvolts", "milivolt", "milivolts", "mvs"),
        "uV": ("uv", "µv", "μv", "microvolt", "microvolts", "uvolt", "uvolts", "mcv", "mcrv", "muv"),
        "nV": ("nv", "nanovolt", "nanovolts", "nvolt"),
        "V": ("v", "volt", "volts"),
    }
)
_VOLTAGE_BY_SPELLING = {spelling: unit for unit, spellings in _VOLTAGES.items() for spelling in spellings}

_KINDS: dict[str, tuple[Kind, ...]] = {}
_WEAK: set[tuple[str, Kind]] = set()
for _kind, _names in _WORDS.items():
    _strong, _, _weak = _names.partition("|")
    for _word in (*_strong.split(), *_weak.split()):
        _KINDS[_word] = (*_KINDS.get(_word, ()), _kind)
    _WEAK.update((_word, _kind) for _word in _weak.split())

_CAPITAL_AFTER_SMALL = re.compile(r"(?<=[a-zµμ])(?=[A-Z])")
# Splitting at capitals tears 'mV' and 'kHz' apart; they are put together again.
_SPLIT_UNIT = re.compile(r"(?<![a-zµμ])([muµμnk]) (v|hz)(?![a-z])", flags=re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+|#")
_COUNT = r"(?:bit|bits|lsb|count|counts|adu|adus|adunit|adcunit|adcount|adccount|step|digit|digital|unit|level|code)s?"
_STEP_OF_UNIT = re.compile(rf"(?P<unit>[a-zµμ]+)per{_COUNT}|{_COUNT}?to(?P<to>[a-zµμ]+)")
_GAIN_OF_UNIT = re.compile(rf"(?:adc|(?:adc)?{_COUNT})per(?P<unit>[a-zµμ]+)")
# Matches the slash in 'uV/LSB' and 'counts/mV'.
_SLASH = re.compile(rf"(?<=[a-zµμ])\s*/\s*(?={_COUNT}\b)|(?<=[a-z])\s*/\s*(?=[mnuµμ]?v\b)", flags=re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class StatedName:
    """A name in a file, parsed as the name of a statement.

    Attributes:
        kinds: Kinds of statements that the name may stand for; empty where it stands for none.
        unit: Unit that the name ends or begins with, in lower case, or empty.
        weak: Kinds that the name stands for only where the value cannot mean anything else.
        is_qualified: Whether the name contains a word for the rate and more, such as `original_fs`.
    """

    kinds: tuple[Kind, ...] = ()
    unit: str = ""
    weak: frozenset[Kind] = frozenset()
    is_qualified: bool = False


# The files of a data set use the same names.
@functools.lru_cache(maxsize=4096)
def stated_name(name: str) -> StatedName:
    """Returns what the name of a value in a file may state about the samples.

    Args:
        name: Name in the file, without the groups that contain it.
    """
    if not (words := _words(name)) or any(word in _OTHER_THINGS for word in words):
        return StatedName()
    for candidate, unit in _readings(words):
        if kinds := _KINDS.get(candidate):
            weak = frozenset(kind for kind in kinds if (candidate, kind) in _WEAK)
            return StatedName(kinds=kinds, unit=unit, weak=weak)
        if (match := _STEP_OF_UNIT.fullmatch(candidate)) and voltage(match["unit"] or match["to"]):
            return StatedName(kinds=(Kind.STEP,), unit=match["unit"] or match["to"])
        if (match := _GAIN_OF_UNIT.fullmatch(candidate)) and voltage(match["unit"]):
            return StatedName(kinds=(Kind.GAIN,), unit=match["unit"])
    joined = "".join(words)
    if any(word in _RATE_WORDS for word in words) or re.search(r"sampl\w*(?:rate|freq)", joined):
        return StatedName(kinds=(Kind.RATE,), unit=words[-1] if is_unit(words[-1]) else "", is_qualified=True)
    return StatedName()


def is_about_something_else(part: str) -> bool:
    """Returns whether a group or struct of this name is about something other than the ECG."""
    return any(word in _OTHER_THINGS for word in _words(part))


def is_unit(text: str) -> bool:
    """Returns whether a word is a unit of time, rate or voltage."""
    word = text.strip().casefold()
    return word in _UNITS_OF_TIME or word in _UNITS_OF_RATE or word in _VOLTAGE_BY_SPELLING


def voltage(text: str) -> str | None:
    """Returns the standard spelling of a unit of voltage (`mV`, `uV`, `nV` or `V`), or None for anything else."""
    return _VOLTAGE_BY_SPELLING.get(text.strip().casefold())


def seconds_per(unit: str) -> float | None:
    """Returns the length of a unit of time in seconds, or None for anything else."""
    return _UNITS_OF_TIME.get(unit.strip().casefold())


def hertz_per(unit: str) -> float | None:
    """Returns the size of a unit of rate in hertz, or None for anything else."""
    return _UNITS_OF_RATE.get(" ".join(unit.casefold().split()))


def _words(name: str) -> list[str]:
    spaced = _SPLIT_UNIT.sub(r"\1\2", _CAPITAL_AFTER_SMALL.sub(" ", _SLASH.sub(" per ", name)))
    return [word.casefold() for word in _WORD.findall(spaced)]


def _readings(words: list[str]) -> list[tuple[str, str]]:
    """Returns the possible readings of a name as pairs of text and unit, the most literal first; the unit may be empty.

    Args:
        words: Words of the name, in lower case.
    """
    readings = []
    unit = words[-1] if is_unit(words[-1]) else ""
    meaningful = [word for word in words if word not in _EMPTY]
    for kept in (words, meaningful):
        if not kept:
            continue
        readings.append(("".join(kept), unit))
        if unit and len(kept) > 1:
            shorter = kept[:-2] if kept[-2] == "per" else kept[:-1]
            readings.append(("".join(shorter), unit))
        # Units of voltage also come first, as in 'mv_per_bit'.
        if len(kept) > 1 and voltage(kept[0]):
            readings.append(("".join(kept[1:]), kept[0]))
    return readings
