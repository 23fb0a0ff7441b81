"""Views of stored recordings: augmentations in a fixed order, each with a random key of its own.

The augmentation that needs a second recording comes first, and crops come next. Then come those that move beats, time
and the dipole on the stored leads, from which the other leads follow; then noise on all leads; and masks come last.
Each augmentation draws from a key that is made from the row's key and the augmentation's name, so that enabling or
disabling one does not change the draws of the others.
"""

from __future__ import annotations

import functools
import inspect
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax import leads
from ecgjax.augmentations import partners
from ecgjax.augmentations.beats import heartbeat_shuffle
from ecgjax.augmentations.crops import Recorded, random_crop, resized_crop, segments_of, stretched_crop
from ecgjax.augmentations.dipole import vcg
from ecgjax.augmentations.filters import lowpass
from ecgjax.augmentations.geodesic import geodesic
from ecgjax.augmentations.masks import lead_mask, time_mask
from ecgjax.augmentations.noise import (
    baseline_shift,
    baseline_wander,
    emg,
    gaussian_noise,
    noise_floor,
    powerline,
)
from ecgjax.augmentations.warps import amplitude_scale, polarity, time_reversal, time_warp
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows
from ecgjax.settings.bounds import ZERO_OR_MORE
from ecgjax.settings.leaf import Arguments, Leaf, Value, arguments_of

Augmentation = Callable[..., Array]

# The augmentations by name, in five stages that act one after the other. A new one is an entry of its stage, and of
# `_IDLE_AT_ZERO` or `_IDLE_AT` where settings can make it leave signals as they are.
#: Augmentations between two recordings.
BETWEEN: Mapping[str, Augmentation] = {"geodesic": geodesic}
#: Augmentations that cut a part out.
CROPS: Mapping[str, Augmentation] = {
    "random_crop": random_crop,
    "resized_crop": resized_crop,
    "stretched_crop": stretched_crop,
}
#: Crops after which a view is shorter than the recording.
_SHORTENING = ("random_crop", "stretched_crop")
#: Augmentations of the eight stored leads.
ON_STORED_LEADS: Mapping[str, Augmentation] = {
    "heartbeat_shuffle": heartbeat_shuffle,
    "time_warp": time_warp,
    "time_reversal": time_reversal,
    "vcg": vcg,
    "amplitude_scale": amplitude_scale,
    "polarity": polarity,
}
#: Augmentations that add to all leads, and the recorder's filter, which noise passes as well.
NOISE: Mapping[str, Augmentation] = {
    "gaussian_noise": gaussian_noise,
    "noise_floor": noise_floor,
    "emg": emg,
    "powerline": powerline,
    "baseline_wander": baseline_wander,
    "baseline_shift": baseline_shift,
    "lowpass": lowpass,
}
#: Augmentations that set parts to zero.
MASKS: Mapping[str, Augmentation] = {"time_mask": time_mask, "lead_mask": lead_mask}
AUGMENTATIONS: Mapping[str, Augmentation] = {**BETWEEN, **CROPS, **ON_STORED_LEADS, **NOISE, **MASKS}

#: Name of the step between noise and masks that makes the limb leads follow from I and II again.
RESTORE = "restore_limb_algebra"

# Arguments that no config sets.
_NOT_SETTINGS = ("key", "ecg", "stored", "towards", "recorded", "rate_hz")
# Settings that are not arguments of the function but of the code that makes these arguments.
_OF_ARGUMENTS = {"geodesic": partners.LEAVES}
# Any of these settings at 0 makes its augmentation leave every signal as it is.
_IDLE_AT_ZERO = {
    "geodesic": ("max_step", "p"),
    "heartbeat_shuffle": ("p",),
    "time_warp": ("sigma",),
    "time_reversal": ("p",),
    "amplitude_scale": ("sigma",),
    "polarity": ("p",),
    "gaussian_noise": ("max_sigma_mv",),
    "noise_floor": ("p",),
    "emg": ("max_amplitude_mv", "p"),
    "powerline": ("max_amplitude_mv", "p"),
    "baseline_wander": ("max_amplitude_mv", "p"),
    "baseline_shift": ("max_shift_mv", "p"),
    "lowpass": ("p",),
    "time_mask": ("ratio",),
    "lead_mask": ("drop_rate",),
}
# These settings make their augmentation leave every signal as it is where all of them have these values.
_IDLE_AT = {
    "random_crop": {"ratio": 1},
    "resized_crop": {"min_ratio": 1, "max_ratio": 1},
    "stretched_crop": {"ratio": 1, "max_change": 0},
    "vcg": {"max_angle_deg": 0, "max_scale": 1},
}
# These augmentations draw only whether they act.
_ACT_OR_NOT = ("time_reversal", "polarity")
# Settings of every augmentation beside its own.
_COMMON = ("enabled", "views")


def leaves_by_name() -> dict[str, dict[str, Leaf]]:
    """Returns the leaves of `config.augment`, augmentation → setting → leaf; every augmentation is disabled."""
    enabled = Leaf(bool, None, False, False, "Whether it is enabled.")
    views = Leaf(tuple, int, (), False, "Numbers of the views that it acts on, from 0; empty for all.", ZERO_OR_MORE)
    found = {}
    for name, function in AUGMENTATIONS.items():
        own = arguments_of(function, without=_NOT_SETTINGS)
        found[name] = {"enabled": enabled, "views": views, **own, **_OF_ARGUMENTS.get(name, {})}
    return found | {RESTORE: {"enabled": enabled}}


class Shown(NamedTuple):
    """The signal that a view shows, so that views with the same signal can be recognised.

    Attributes:
        number: Number of the signal, 0 or more, shared by all views that show the same signal; −1 where augmentations
            draw anew for each view.
        if_moved: Whether a draw is made only for recordings that are moved towards another (`geodesic`).
    """

    number: int
    if_moved: bool = False


class Views:
    """Augmented views of stored recordings, as configured.

    Args:
        augment: Settings of each augmentation, by the names of `AUGMENTATIONS`; `enabled: False` switches one off, and
            `views` says on which views it acts. The order is this module's, not the mapping's.
        num_views: Number of views of each segment; without any augmentation they are identical.
        segments: Number of adjacent parts of equal length that each recording is cut into before anything else.
        num_leads: Number of leads of a view, 12 or 8.
        rate_hz: Sampling rate of the recordings, in samples per second.

    Raises:
        ConfigError: An augmentation or setting is unknown, a view does not exist, augmentations exclude each other (the
            crops), or `restore_limb_algebra` is enabled with a number of leads other than 12.
    """

    def __init__(
        self,
        augment: Mapping[str, Arguments],
        *,
        num_views: int = 2,
        segments: int = 1,
        num_leads: int = 12,
        rate_hz: float,
    ):
        _check_names(augment)
        enabled = {name: settings for name, settings in augment.items() if settings.get("enabled", True)}
        self.restores = RESTORE in enabled
        if self.restores and num_leads != 12:
            raise ConfigError(f"config.augment.{RESTORE} is for 12 leads; config.encoder.num_leads={num_leads}")
        if len(crops := [name for name in CROPS if name in enabled]) > 1:
            raise ConfigError(
                f"config.augment enables {' and '.join(crops)}, which are {len(crops)} ways to crop; leave one enabled"
            )
        self._functions = {
            name: _bound(name, enabled[name], rate_hz=rate_hz) for name in AUGMENTATIONS if name in enabled
        }
        of_name = {name: _numbers(enabled[name]) for name in self._functions}
        acting = [
            tuple(name for name in self._functions if not of_name[name] or view in of_name[name])
            for view in range(num_views)
        ]
        _check_views(enabled, acting)
        settings = {name: {**_defaults(name), **enabled[name]} for name in self._functions}
        #: What each view of a segment shows.
        self.shown = _shown(acting, settings)
        # Views that are drawn alike are drawn together.
        self._groups = {names: [v for v in range(num_views) if acting[v] == names] for names in dict.fromkeys(acting)}
        self.num_views, self.segments, self.num_leads, self.rate_hz = num_views, segments, num_leads, rate_hz

    @property
    def moves_between_recordings(self) -> bool:
        """Whether views need recordings to move towards."""
        return not BETWEEN.keys().isdisjoint(self._functions)

    def __call__(
        self, keys: Array, signal: Array, *, recorded: Recorded | None = None, towards: Array | None = None
    ) -> Array:
        """Draws the views.

        Args:
            keys: Random key of each row, `key[batch]`, as `ecgjax.keys.row_keys` makes them.
            signal: Stored recordings, `int16[batch, time, 8]`, in µV.
            recorded: Samples of each row that are no padding, each `i32[batch]`; None where there is no padding.
            towards: Recordings to move towards, `int16[batch, time, 8]`, in µV, which `geodesic.Overlay` makes; needed
                where `moves_between_recordings`.

        Returns:
            Views, `f32[batch, segments · num_views, time, num_leads]`, in mV, the views of the first segment first; the
            time is that of the segment, or of the crop, where there is one.

        Raises:
            ConfigError: There are no recordings to move towards.
        """
        return self.masked_and_whole(keys, signal, recorded=recorded, towards=towards)[0]

    def masked_and_whole(
        self, keys: Array, signal: Array, *, recorded: Recorded | None = None, towards: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns the views after and before masking; arguments, shapes and errors are those of `__call__`."""
        if self.moves_between_recordings and towards is None:
            raise ConfigError("config.augment.geodesic moves recordings towards others, and there are none here")
        keys = split_rows(keys, self.segments * self.num_views).reshape(len(signal), self.segments, self.num_views)
        return jax.vmap(self._row)(keys, signal, recorded, towards)

    def _row(self, keys: Array, stored: Array, recorded: Recorded | None, towards: Array | None) -> tuple[Array, Array]:
        """Draws the views of one recording, masked and whole, each `f32[segments · views, time, lead]`.

        It takes one key for each segment and view, `key[segments, views]`, and the recording, `int16[time, 8]`.
        """
        if self.segments == 1:
            return self._segment(keys[0], stored, recorded, towards)
        if towards is not None:
            towards, _ = segments_of(towards, recorded, segments=self.segments)
        parts, recorded = segments_of(stored, recorded, segments=self.segments)
        views = jax.vmap(self._segment)(keys, parts, recorded, towards)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), views)

    def _segment(
        self, keys: Array, stored: Array, recorded: Recorded | None, towards: Array | None
    ) -> tuple[Array, Array]:
        drawn: list[tuple[Array, Array] | None] = [None] * self.num_views
        for names, numbers in self._groups.items():
            together = jax.vmap(lambda key, names=names: self._view(names, key, stored, recorded, towards))(
                keys[jnp.array(numbers)]
            )
            if len(numbers) == self.num_views:
                return together
            for position, number in enumerate(numbers):
                drawn[number] = jax.tree.map(lambda x, position=position: x[position], together)
        return jax.tree.map(lambda *views: jnp.stack(views), *drawn)

    def _view(
        self, names: Sequence[str], key: Array, stored: Array, recorded: Recorded | None, towards: Array | None
    ) -> tuple[Array, Array]:
        ecg = leads.millivolts(stored)
        if "geodesic" in names:
            ecg = self._functions["geodesic"](key_of(key, "geodesic"), stored, towards)
        for name in CROPS:
            if name in names:
                ecg = self._functions[name](key_of(key, name), ecg, recorded=recorded)
        ecg = self._apply(ON_STORED_LEADS, names, key, ecg)
        ecg = leads.derive(ecg, self.num_leads)
        ecg = self._apply(NOISE, names, key, ecg)
        if self.restores:
            ecg = leads.restore_limb_algebra(ecg)
        return self._apply(MASKS, names, key, ecg), ecg

    def _apply(self, stage: Mapping[str, Augmentation], names: Sequence[str], key: Array, ecg: Array) -> Array:
        for name in stage:
            if name in names:
                ecg = self._functions[name](key_of(key, name), ecg)
        return ecg


def key_of(key: Array, name: str) -> Array:
    """Returns the random key of the augmentation `name`, `key[]`, from the key of a row and view, `key[]`."""
    # Python's `hash` of a text is another in every process, so that a resumed run would draw other views.
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _shown(acting: Sequence[tuple[str, ...]], settings: Mapping[str, Arguments]) -> tuple[Shown, ...]:
    """Returns the signal that each view shows.

    Args:
        acting: Names of the augmentations that act on each view.
        settings: Settings of these augmentations by name, with defaults.
    """
    changes = [[name for name in names if not _is_idle(name, settings[name])] for names in acting]
    always = [tuple(name for name in names if name in _ACT_OR_NOT and settings[name]["p"] == 1) for names in changes]
    drawn = [set(names).difference(same) for names, same in zip(changes, always, strict=True)]
    number = {names: i for i, names in enumerate(dict.fromkeys(always))}
    return tuple(
        Shown(-1 if names.difference(BETWEEN) else number[same], if_moved=bool(names) and names.issubset(BETWEEN))
        for names, same in zip(drawn, always, strict=True)
    )


def _is_idle(name: str, settings: Arguments) -> bool:
    together = _IDLE_AT.get(name)
    return any(settings[leaf] == 0 for leaf in _IDLE_AT_ZERO.get(name, ())) or (
        together is not None and all(settings[leaf] == value for leaf, value in together.items())
    )


def _defaults(name: str) -> dict[str, Value]:
    parameters = inspect.signature(AUGMENTATIONS[name]).parameters
    own = {name: parameter.default for name, parameter in parameters.items() if name not in _NOT_SETTINGS}
    return own | {setting: leaf.default for setting, leaf in _OF_ARGUMENTS.get(name, {}).items()}


def _check_names(augment: Mapping[str, Arguments]) -> None:
    known = [*AUGMENTATIONS, RESTORE]
    if unknown := sorted(set(augment) - set(known)):
        raise ConfigError(f"config.augment has unknown entries {unknown}; there are: {known}")
    for name, settings in augment.items():
        settable = [*_COMMON, *_defaults(name)] if name in AUGMENTATIONS else ["enabled"]
        if unknown := sorted(set(settings) - set(settable)):
            raise ConfigError(f"config.augment.{name} has no settings {unknown}; there are: {settable}")


def _check_views(enabled: Mapping[str, Arguments], acting: Sequence[tuple[str, ...]]) -> None:
    for name, settings in enabled.items():
        views = _numbers(settings)
        if any(view not in range(len(acting)) for view in views):
            raise ConfigError(
                f"config.augment.{name}.views={views} names views that there are not; each recording has "
                f"{len(acting)}, from 0"
            )
    for name in _SHORTENING:
        if len({name in names for names in acting}) > 1:
            raise ConfigError(
                f"config.augment.{name}.views must be empty: all views of a recording have the same length"
            )


def _numbers(settings: Arguments) -> tuple[object, ...]:
    """Returns the numbers of the views that an augmentation acts on; none where it acts on all."""
    views = settings.get("views") or ()
    return views if isinstance(views, tuple) else (views,)


def _bound(name: str, settings: Arguments, *, rate_hz: float) -> Augmentation:
    function = AUGMENTATIONS[name]
    own = {key: value for key, value in settings.items() if key not in (*_COMMON, *_OF_ARGUMENTS.get(name, ()))}
    if "rate_hz" in inspect.signature(function).parameters:
        own["rate_hz"] = rate_hz
    return functools.partial(function, **own)
