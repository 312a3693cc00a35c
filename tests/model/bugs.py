"""Mistakes that can be planted in the protocol by name; every one must be caught by some model."""

from __future__ import annotations

from enum import Enum


class Bug(Enum):
    """One mistake each. The value says what the mistaken process does; `catalogue.py` says what catches it."""

    ACKNOWLEDGES_BEFORE_STORE = "the writer acknowledges when it sends, not when the store has answered"
    ACKNOWLEDGES_OUT_OF_ORDER = "the writer acknowledges a stored slot while a lower one is still in flight"
    ABSENT_IS_NOT_STORED = "the writer gives up on a slot, reads 404 there and says NotStored without sealing"
    SEALED_SLOT_IS_STORED = "the writer takes AlreadyExists as success and does not read what is there"
    REAPPENDS_WITHOUT_SEAL = "the writer that got no answer appends the batch again in a new session"
    FINAL_CARRIES_EVENTS = "the writer's own final holds its last batch instead of being empty"

    NUMBER_AFTER_CLOSED = "the poster goes on counting after a closed entry instead of turning to the next chapter"
    STAMP_BELOW_TAIL = "the poster does not lift its clock above the roster's tail before it posts"

    SEALS_OVER_LOSS = "the sealer creates the final in any gap, whatever names the slot"
    SEALS_PAST_TICK = "the sealer asks the next slots but not the ticks"
    SEALER_LOOKS_ONE_SHORT = "the sealer looks at one slot fewer than may be in flight"
    SEALS_WITHOUT_REREADING = "the sealer that meets a later slot cries Missing without reading the gap again"

    SEAL_SAYS_NOTHING = "the sealer's final does not say that all slots below it were stored"
    SEAL_NOT_REVIEWED = "the sealer does not ask the slots above once more after its final was created"
    SLEEPER_TRUSTS_ITS_LAST_SLOT = (
        "the owner that slept does not read its last slot again before it acknowledges the next"
    )

    READS_PAST_FINAL = "the reader goes on to the slots after a final"
    SKIPS_ABSENT_SLOT = "the reader passes over an absent slot when the next one is there"
    WATERMARK_FORGETS_NEW_SESSION = "a session of which no slot was read yet does not hold the watermark down"
    WATERMARK_ONE_TOO_HIGH = "the watermark is one above what it should be"
    IGNORES_TICK_SLOTS = "the reader does not ask for the slots that a tick names"

    NO_LOOK = "nobody looks whether the chapter was retired"
    LOOK_FROM_ITS_END = "a look is relied on from when its answer was taken in, not from when it began"
    LOOK_FOR_WHOLE_GRACE_AND_MORE = "a look is relied on for twice the grace"
    LOOK_BEFORE_NOT_AFTER = "the look is made before the request that is concluded from, not after it"
    READER_TRUSTS_FINALS = "the reader believes a final without looking, so a zombie's in a collected prefix too"
    READER_TRUSTS_404 = "the reader polls an absent slot for ever without looking"
    COUNT_INCLUDES_FINAL = "the retirement record counts the final among a session's slots"
    GRACE_FROM_DECISION = "the collector counts the grace from its decision, not from the record's creation"
    TRUSTS_ITS_RECORD = "the collector counts the grace from a creation of the record that was never answered"
    RETIRES_UNFINISHED = "the collector retires a chapter with a session that has no final yet"
