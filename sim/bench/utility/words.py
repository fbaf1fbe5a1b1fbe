"""Plain sentences: where privacy makes learning useless, where it does not pay, where it does."""

from __future__ import annotations

from sim.bench.utility.tasks import Task

CLASSES = {"mnist": 10, "digits": 10, "vowels": 9}
USELESS_SHARE = 0.5
"""Of what the fleet learns beyond guessing without noise. Below half of it: useless, we judge."""
LITTLE_POINTS = 5.0
"""A loss that most jobs can bear, we judge."""

EVEN_POINTS = 1.0
"""Seeds differ by as much."""


def sentence(epsilon: float, task: Task, found: float, together: float, alone: float) -> str:
    """What `found` percent at this epsilon is worth; `together` and `alone` are without noise."""
    guess = 100.0 / CLASSES[task.name]
    start = f"epsilon {epsilon:g}"
    share = max(0.0, found - guess) / max(1e-9, together - guess)
    if share < USELESS_SHARE:
        text = f"**useless**: {found:.0f} % where guessing has {guess:.0f} % and the fleet without "
        text += f"noise {together:.0f} %."
        if found < alone:
            text += f" One device alone, which publishes nothing, has {alone:.0f} %."
        return f"{start}: {text}"
    if abs(found - alone) < EVEN_POINTS:
        return (
            f"{start}: **breaks even**: {found:.1f} % against {alone:.1f} % of a device alone that "
            "publishes nothing and needs no noise."
        )
    if found < alone:
        return (
            f"{start}: **does not pay**: {found:.0f} %, and a device that publishes nothing and "
            f"needs no noise learns {alone:.0f} % alone."
        )
    lost = together - found
    return (
        f"{start}: **pays**: {found:.0f} % against {alone:.0f} % of a device alone without noise"
        + (
            f"; noise costs {lost:.0f} points."
            if lost >= LITTLE_POINTS
            else f"; noise costs little ({lost:.1f} points)."
        )
    )


HEAD = """# What privacy costs in accuracy

```
python examples/fetch_mnist.py
python examples/fetch_aeon.py
script/bench privacy-utility --out privacy-utility.jsonl --report privacy-utility.md
```

Every figure of "together" and "with liars" is a history of real nodes, bundles and ledgers on \
virtual time; no ledger holds more than the epsilon of its row. Raw rows: \
[privacy-utility.jsonl](privacy-utility.jsonl). Accuracy in percent on data held out for all, \
mean / worst honest device: the mean over the seeds, the worst of all.
"""
TAIL = """## How to read it

- **Alone, same epsilon**: a device that would publish its own model, with the same noise, steps \
and accountant, at the learning rate that is best for it. **Alone without noise** is what \
matters to who has a choice: who publishes nothing needs no privacy.
- **Break-even** is a model, not a history of nodes: the devices of the task in lockstep stand \
for n with data like theirs, with the noise of the mean of n; one draw of noise each. Fleets are \
the task's times powers of two; the learning rate (of three) or clip (of two) is the best. \
Where a fleet gets no further even without noise (one round), it is rough.
- **The start counts.** Devices that begin before they have found each other average few models at \
first, and noise that is in stays in: where it is large, real nodes end below the lockstep model \
that learning rates were chosen with.
- **Where each device has one class** (the speakers), one device alone knows its own speaker \
only, so to beat it says little; and a rule that leaves out the farthest models leaves out \
speakers, so that liars cost much, with privacy or without.
- **The budget** is for all rounds together: z is the least that `gossipfl privacy plan` allows, \
delta = {delta}. Under `device` the signal to \
noise is the same for any number of rounds: more of them need more noise each, fewer do not get \
as far.
- **Liars** (attack foe: the mean step of the honest ones, eleven times, the other way) see \
every published model and add no noise. The policy assumes as many as there are; the rule is \
`{rule}`, every device pulls from all.

## How the numbers were chosen

- Models with few parameters: noise grows with the square root of their number.
- `record`: the clip is 1. The lot is a fifth of a device's examples on MNIST, half of them on \
digits, all of them for the speakers. At one budget a larger lot leaves more signal (`privacy \
plan` says so), and few steps are quick. Where each device has one class, a single step a round \
keeps devices from drifting apart.
- `device`: five passes at rate {rate}, five rounds; the clip is half the length of a first \
round's change on seed 101, as `privacy plan` advises.
- Learning rates: `script/bench privacy-utility --tune` takes the best power of two on seeds 101 \
and 102, in lockstep, for each epsilon, together and alone. Seeds 1 and up are reported. The \
test sets of the speakers are the same for every seed. No momentum.
- The channels of JapaneseVowels are scaled by means and deviations of the whole training set. \
That is taken as public here; a real fleet would have to take constants that no private data \
went into.
"""
