"""Whatever the description of the API allows, and much that it does not, never ends in a 5xx."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from calidrift_agent._state import PUSH_MEDIA_TYPE

pytestmark = pytest.mark.slow
schemathesis.serializer.alias(PUSH_MEDIA_TYPE, "application/octet-stream")
EXAMPLES = 5
QUIET = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def statuses_of(site, operation):
    """Send what the description of one operation gives, and note the answers."""
    found = set()

    @QUIET
    @hypothesis.given(case=operation.as_strategy())
    def ask(case):
        answer = site.http.request(
            case.method,
            case.formatted_path,
            params=case.query,
            json=case.body if isinstance(case.body, dict | list) else None,
            content=case.body if isinstance(case.body, bytes) else None,
        )
        assert answer.status_code < 500, (operation.label, case.query, case.body, answer.text)
        found.add(answer.status_code)

    ask()
    return found


def test_no_operation_fails_by_a_defect(make_site, traffic):
    site = make_site(requests_per_minute=10**9)
    site.record(traffic)
    site.service.tasks.assess()
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", site.http.app)

    answered = {
        found.ok().label: statuses_of(site, found.ok()) for found in schema.get_all_operations()
    }

    assert len(answered) >= 20
    assert all(answered.values()), answered
    assert any(200 in statuses or 202 in statuses for statuses in answered.values())
    assert site.http.get("/readyz").status_code == 200
