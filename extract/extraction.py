"""A plan that is being carried out, whoever does the work: what is to be tried again, and the commit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..configs.schema import ExtractConfig
from ..progress import Progress
from ..store.group import StoredGroup
from ..store.inside import check_there
from .bundle_pass import GONE
from .commit import commit_bundle, provenance
from .plan import BundlePlan, Plan
from .run_log import OtherReasons, RunLog
from .tally import Tally


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """What the ways of working share.

    Attributes:
        plan, config: what is done.
        tally: what was done so far.
        log: the run's record.
        progress: told of views whose features are complete.
    """

    plan: Plan
    config: ExtractConfig
    tally: Tally
    log: RunLog
    progress: Progress

    def retry_rows(self, part: BundlePlan) -> frozenset[int]:
        """With retry=failed, the rows of a visible bundle that some layer lacks and that can be had."""
        if self.config.retry != "failed":
            return frozenset()
        rows: set[int] = set()
        for spec in part.layers.values():
            group = StoredGroup(self.plan.root / spec.folder)
            if group.has("tokens"):
                missing = group.array_attributes("tokens").get("missing", {})
                rows.update(int(row) for row, why in missing.items() if why != GONE)
        return frozenset(row for row in rows if part.sources[row] is not None)

    def commit(self, part: BundlePlan, device_name: str, again: bool) -> None:
        """Make a bundle visible whose units are all there; `again` as in `commit_bundle`."""
        check_there(self.plan.root)
        reasons = {**self._others.now(), **self.tally.failures}
        commit_bundle(self.plan, part, reasons, provenance(device_name, self._weights), again)

    @cached_property
    def _others(self) -> OtherReasons:
        return OtherReasons(self.plan.root, self.plan.key.folder)

    @property
    def _weights(self) -> str:
        """Where weights came from, without the path, which differs between machines."""
        weights = self.config.weights
        return Path(weights).name if "/" in weights else weights
