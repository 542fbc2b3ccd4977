"""The independent client of Marathon, unmodified, takes a walk through a server.

The arguments are the line of its release, 1.x, and its URLs.
"""

import collections
import collections.abc
import sys
import threading
import time

# The last release of the client is older than Python 3.10, which took this name away.
collections.Iterable = collections.abc.Iterable

from marathon import MarathonClient, MarathonHttpError, NotFoundError
from marathon.exceptions import ConflictError
from marathon.models import MarathonApp, MarathonGroup
from marathon.models.constraint import MarathonConstraint
from marathon.models.container import MarathonContainer, MarathonDockerContainer
from marathon.models.deployment import MarathonDeployment
from marathon.models.events import MarathonDeploymentSuccess, MarathonStatusUpdateEvent
from marathon.models.task import MarathonTask

line = int(sys.argv[1])
client = MarathonClient(sys.argv[2:], username="keel", password="even")


def until(what, look):
    end = time.monotonic() + 20
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, "never: " + what
        time.sleep(0.02)


def settled():
    until("no deployment runs", lambda: not client.list_deployments())


assert client.ping() == b'"pong"', client.ping()
info = client.get_info()
assert info.name == "marathon" and info.elected, info
assert client.get_leader()["leader"]

heard = []
# It knows neither plans without trees, which deployments have from 1.7 on, nor the later name of statistics.
kinds = [] if line < 7 else [MarathonDeploymentSuccess, MarathonStatusUpdateEvent]


def listen():
    for event in client.event_stream(event_types=kinds):
        heard.append(event)


# Its library hands on no event before 512 bytes have come: what is heard is looked at in the end.
threading.Thread(target=listen, daemon=True).start()
time.sleep(1)

# Create.
app = MarathonApp(
    cmd="sleep 3600", cpus=0.1, mem=32, instances=2, labels={"team": "a"}, env={"A": "1"},
    constraints=[MarathonConstraint("hostname", "UNIQUE")],
)
made = client.create_app("/py/web", app)
assert made.id == "/py/web" and made.deployments, made
assert isinstance(made.deployments[0], MarathonDeployment)
settled()
try:
    client.create_app("/py/web", app)
    raise AssertionError("it was created twice")
except ConflictError:
    pass

# List.
apps = client.list_apps(embed_tasks=True, embed_task_stats=line < 9, label="team==a")
assert [a.id for a in apps] == ["/py/web"], apps
assert len(apps[0].tasks) == 2 and isinstance(apps[0].tasks[0], MarathonTask)
assert client.list_apps(label="team==b") == []
web = client.get_app("/py/web")
assert web.tasks_running == 2 and web.env == {"A": "1"}, web
assert web.constraints[0].operator == "UNIQUE"

# Scale.
client.scale_app("/py/web", instances=3)
settled()
assert len(client.list_tasks("/py/web")) == 3
client.scale_app("/py/web", delta=-1)
settled()
assert client.get_app("/py/web").instances == 2

# Update, and back.
before = client.get_app("/py/web").version
old = {task.id for task in client.list_tasks("/py/web")}
client.update_app("/py/web", MarathonApp(mem=64))
settled()
assert client.get_app("/py/web").mem == 64
assert old.isdisjoint({task.id for task in client.list_tasks("/py/web")})
versions = client.list_versions("/py/web")
assert len(versions) == 4, versions
client.rollback_app("/py/web", before.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" if hasattr(before, "strftime") else before)
settled()
assert client.get_app("/py/web").mem == 32
assert client.get_version("/py/web", versions[0]).id == "/py/web"
client.restart_app("/py/web")
settled()

# Kill.
victim = client.list_tasks("/py/web")[0].id
client.kill_given_tasks([victim])
until("it is replaced", lambda: victim not in {t.id for t in client.list_tasks("/py/web")}
      and len([t for t in client.list_tasks("/py/web") if t.state == "TASK_RUNNING"]) == 2)
victim = client.list_tasks("/py/web")[0].id
killed = client.kill_task("/py/web", victim, scale=True)
assert killed, killed
settled()
assert client.get_app("/py/web").instances == 1
assert victim not in {t.id for t in client.list_tasks("/py/web")}

# Containers, and groups.
docker = MarathonApp(
    id="/py/back/db", cpus=0.1, mem=32, instances=1,
    container=MarathonContainer(docker=MarathonDockerContainer(image="db:1")),
)
client.create_group(MarathonGroup(id="/py/back", apps=[docker]))
settled()
assert client.get_app("/py/back/db").container.docker.image == "db:1"
if line < 9:
    # It does not know what groups of 1.9 say of roles.
    assert client.get_group("/py").groups[0].apps[0].id == "/py/back/db"
assert client.list_endpoints() is not None

# What cannot be placed waits, as a deployment and in the queue.
client.create_app("/py/stuck", MarathonApp(cmd="sleep 1", cpus=9999, mem=32, instances=1))
if line < 9:
    # Nor what the queue says of them.
    stuck = until("it waits", lambda: client.list_queue())
    assert stuck[0].app.id == "/py/stuck" and stuck[0].count == 1, stuck
deployments = until("it is being deployed", lambda: [
    d for d in client.list_deployments() if d.current_actions and d.current_actions[0].action == "ScaleApplication"])
assert [d.affected_apps for d in deployments] == [["/py/stuck"]], deployments
assert deployments[0].current_actions[0].action == "ScaleApplication"
client.delete_deployment(deployments[0].id)
settled()
try:
    client.get_app("/py/stuck")
    raise AssertionError("its deployment was taken back, and it is there")
except NotFoundError:
    pass

# Refusals.
try:
    client.create_app("/py/bad", MarathonApp(cmd="sleep 1", cpus=0.1, mem=32, constraints=[["hostname", "LIKE"]]))
    raise AssertionError("a constraint without a value was taken")
except MarathonHttpError as error:
    assert error.status_code == 422, error

# Delete.
client.delete_app("/py/web")
client.delete_group("/py/back")
settled()
assert client.list_apps() == [] and client.list_tasks() == []

until("the end of a deployment is heard", lambda: [e for e in heard if isinstance(e, MarathonDeploymentSuccess)])
states = {event.task_status for event in heard if isinstance(event, MarathonStatusUpdateEvent)}
assert {"TASK_STAGING", "TASK_RUNNING", "TASK_KILLED"} <= states, states
print("walked:", len(heard), "events")
