"""Which world catches which planted mistake, and by which promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.model import retention, worlds
from tests.model.bugs import Bug
from tests.model.explorer import World

P1, P3, P4 = "P1 durable", "P3 no gaps", "P4 never overwritten"
P6, P7 = "P6 exactly one copy", "P7 one order"
P11, P12, FALSE_ALARM = "P11 retention is safe", "P12 damage is found", "P12 no false alarm"


class Catch(NamedTuple):
    """Planted in this world, the mistake breaks this promise first."""

    bug: Bug
    world: Callable[..., World]
    promise: str


CATCHES = (
    Catch(Bug.ACKNOWLEDGES_BEFORE_STORE, worlds.one_order, P1),
    Catch(Bug.ACKNOWLEDGES_OUT_OF_ORDER, worlds.flights, P1),
    Catch(Bug.ABSENT_IS_NOT_STORED, worlds.flights, P6),
    Catch(Bug.SEALED_SLOT_IS_STORED, worlds.flights, P1),
    Catch(Bug.REAPPENDS_WITHOUT_SEAL, worlds.ambiguity, P6),
    Catch(Bug.FINAL_CARRIES_EVENTS, retention.sleeping_writer, P6),
    Catch(Bug.NUMBER_AFTER_CLOSED, worlds.keepers, P1),
    Catch(Bug.STAMP_BELOW_TAIL, worlds.one_order, P7),
    Catch(Bug.SEALS_OVER_LOSS, worlds.loss, P12),
    Catch(Bug.SEALS_PAST_TICK, worlds.loss_named_by_tick, P12),
    Catch(Bug.SEALER_LOOKS_ONE_SHORT, worlds.loss, P12),
    Catch(Bug.SEALS_WITHOUT_REREADING, worlds.no_false_alarm, FALSE_ALARM),
    Catch(Bug.SEAL_SAYS_NOTHING, worlds.loss_below_a_seal, P12),
    Catch(Bug.SEAL_NOT_REVIEWED, worlds.loss_under_a_writer, P1),
    Catch(Bug.SLEEPER_TRUSTS_ITS_LAST_SLOT, worlds.loss_under_a_writer, P1),
    Catch(Bug.READS_PAST_FINAL, worlds.flights, P6),
    Catch(Bug.SKIPS_ABSENT_SLOT, worlds.flights, P3),
    Catch(Bug.WATERMARK_FORGETS_NEW_SESSION, worlds.one_order, P7),
    Catch(Bug.WATERMARK_ONE_TOO_HIGH, worlds.one_order, P7),
    Catch(Bug.IGNORES_TICK_SLOTS, worlds.loss_named_by_tick, P12),
    Catch(Bug.NO_LOOK, retention.sleeping_writer, P1),
    Catch(Bug.NO_LOOK, retention.sleeping_opener, P1),
    Catch(Bug.NO_LOOK, retention.slow_reader, P11),
    Catch(Bug.NO_LOOK, retention.sleeping_sealer, FALSE_ALARM),
    Catch(Bug.LOOK_FROM_ITS_END, retention.sleeping_writer, FALSE_ALARM),
    Catch(Bug.LOOK_FOR_WHOLE_GRACE_AND_MORE, retention.sleeping_writer, FALSE_ALARM),
    Catch(Bug.LOOK_BEFORE_NOT_AFTER, retention.sleeping_writer, P1),
    Catch(Bug.READER_TRUSTS_FINALS, retention.slow_reader, P11),
    Catch(Bug.READER_TRUSTS_404, retention.slow_reader, P11),
    Catch(Bug.COUNT_INCLUDES_FINAL, retention.sleeping_writer, P1),
    Catch(Bug.GRACE_FROM_DECISION, retention.sleeping_sealer, FALSE_ALARM),
    Catch(Bug.TRUSTS_ITS_RECORD, retention.unanswered_record, P4),
    Catch(Bug.RETIRES_UNFINISHED, retention.sleeping_writer, P6),
)

QUICK = worlds.QUICK + retention.QUICK
LARGE = worlds.LARGE + retention.LARGE
