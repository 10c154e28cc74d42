#!/usr/bin/python3
"""Checks compose.yaml, Dockerfile and deploy/ against each other and against the source; needs no container engine.

What it can't see: whether the images exist, build and start. Called by `make lint`; `--root FOLDER` checks another tree.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

OURS = "firstcome:local"
REPLICATED = ("api", "order-orchestrator", "stock-worker", "payment-worker")
TOP_KEYS = {"name", "services", "networks", "volumes", "secrets"}
SERVICE_KEYS = {
    "image", "build", "restart", "stop_grace_period", "init", "read_only", "cap_drop", "security_opt", "networks",
    "depends_on", "deploy", "hostname", "environment", "volumes", "healthcheck", "shm_size", "command", "secrets", "ports",
}
BELOW = {
    "build": {"context", "dockerfile", "args", "target"},
    "deploy": {"replicas"},
    "healthcheck": {"test", "interval", "timeout", "retries", "start_period"},
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
RESTARTS = {"no", "always", "on-failure", "unless-stopped"}
# Variables of published images; those of Kafka's are names of its settings, of which crates/local-stack has a list.
IMAGE_VARIABLES = {
    "postgres": {"POSTGRES_PASSWORD_FILE"},
    "redis": set(),
    "apache/kafka": {"CLUSTER_ID", "KAFKA_HEAP_OPTS"},
    "prom/prometheus": set(),
    "grafana/grafana": {
        "GF_SECURITY_ADMIN_PASSWORD__FILE", "GF_ANALYTICS_REPORTING_ENABLED", "GF_ANALYTICS_CHECK_FOR_UPDATES",
    },
}
PROMQL_FUNCTIONS = {"sum", "rate", "increase", "max", "min", "avg", "histogram_quantile", "vector", "by", "without"}
PROMQL_WORDS = {"or", "and", "unless", "by", "without", "le"}

problems = []


def wrong(message):
    problems.append(message)


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, which YAML forbids and most readers forgive."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        written = [key.value for key, _ in node.value]
        if twice := sorted({key for key in written if written.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"keys that stand twice: {twice}", node.start_mark)
        return node


def read_yaml(path):
    try:
        return yaml.load(path.read_text(), StrictLoader) or {}
    except (OSError, yaml.YAMLError) as error:
        wrong(f"{path}: {error}")
        return {}


def keys_known(where, found, known):
    for key in found:
        if key not in known and not (where == "compose.yaml" and key.startswith("x-")):
            wrong(f"{where}: unknown key {key}")


def words(service, key):
    value = service.get(key) or []
    return list(value)


class Program:
    """What the source says about one of our programs: prefix of its variables, names of its settings, which it can't do without."""

    def __init__(self, package):
        main = (package / "src/main.rs").read_text()
        self.name = re.search(r'name: "([a-z-]+)"', main)[1]
        self.prefix = re.search(r'env_prefix: "([A-Z_]+)"', main)[1]
        sources = [path.read_text() for path in sorted((package / "src").rglob("*.rs"))]
        example = next(found[1] for text in sources if (found := re.search(r'EXAMPLE_SETTINGS: &str = include_str!\("../(.*?)"\)', text)))
        self.settings = setting_names((package / example).read_text())
        self.required = required_settings((package / "src/settings.rs").read_text())
        kit = [path.read_text() for path in sorted((package.parent / "crates/service-kit/src").rglob("*.rs"))]
        traces = [path.read_text() for path in sorted((package.parent / "crates/traces/src").rglob("*.rs"))]
        read = re.findall(r'(?:env::var(?:_os)?|variable)\(\s*"([A-Z_]+)"', "\n".join(sources + kit + traces))
        self.plain = set(read) | ({"RUST_LOG"} if any("try_from_default_env" in text for text in kit) else set())


def setting_names(example):
    """Names of all settings of an example file as tuples, commented ones and those of inline tables included."""
    names, table = set(), ()
    for line in example.splitlines():
        line = re.sub(r"^#\s?", "", line)
        if header := re.match(r"\[([a-z_.]+)\]\s*$", line):
            table = tuple(header[1].split("."))
        elif name := re.match(r"([a-z_][a-z0-9_]*) *= *(.*)", line):
            names.add((*table, name[1]))
            if name[2].startswith("{"):
                names |= {(*table, name[1], inner) for inner in re.findall(r"([a-z_]+) *=", name[2])}
    return names


def required_settings(source):
    """Fields of `Settings` without a default."""
    body = re.search(r"pub struct Settings \{(.*?)\n\}", source, re.S)[1]
    required, has_default = set(), False
    for line in body.splitlines():
        has_default |= "serde(default" in line
        if field := re.match(r"\s+pub ([a-z_]+):", line):
            if not has_default:
                required.add((field[1],))
            has_default = False
    return required


def registered_metrics(root):
    """Metric names in the source, with what Prometheus shows of them."""
    makers = r"Opts::new|IntCounter::new|IntGauge::new|Gauge::new|Counter::new|register_\w+!|\bcounter|\bgauge|\bhistogram"
    shown = {"up"}
    for package in ("crates/messaging", "crates/service-kit", *REPLICATED):
        for path in sorted((root / package / "src").rglob("*.rs")):
            for maker, name in re.findall(rf'(\w*(?:{makers}))\(\s*"([a-z][a-z0-9_]+)"', path.read_text()):
                is_histogram = "istogram" in maker
                shown |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if is_histogram else {name}
    return shown


def check_shape(compose):
    keys_known("compose.yaml", compose, TOP_KEYS)
    services = compose.get("services") or {}
    for name, service in services.items():
        keys_known(f"service {name}", service, SERVICE_KEYS)
        for key, known in BELOW.items():
            keys_known(f"service {name}: {key}", service.get(key) or {}, known)
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            wrong(f"service {name}: no name for a host")
        if service.get("restart") not in RESTARTS:
            wrong(f"service {name}: restart is {service.get('restart')!r}")
        image = service.get("image", "")
        if image != OURS and not re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)?$|:\d+\.\d+-[a-z]+$", image):
            wrong(f"service {name}: image {image} is not pinned to a version")
    for name in REPLICATED:
        if (services.get(name, {}).get("deploy") or {}).get("replicas") != 2:
            wrong(f"service {name}: two replicas are promised")
    return services


def check_references(root, compose, services, secrets):
    """Every name that is used is defined, and the other way round."""
    used = {"networks": set(), "volumes": set(), "secrets": set()}
    for name, service in services.items():
        used["networks"] |= set(words(service, "networks"))
        used["secrets"] |= set(words(service, "secrets"))
        for volume in words(service, "volumes"):
            source, target = volume.split(":")[:2]
            if not source.startswith("."):
                used["volumes"].add(source)
            elif not (root / source).exists():
                wrong(f"service {name}: mounted file {source} is not there")
            if not target.startswith("/"):
                wrong(f"service {name}: {volume} mounts to no absolute path")
        for other, need in (service.get("depends_on") or {}).items():
            check_dependency(name, service, other, need, services)
        if service.get("restart") != "on-failure" and not (service.get("healthcheck") or {}).get("test"):
            wrong(f"service {name}: it has no health check")
        for word in map(str, words(service, "command")):
            if (found := re.fullmatch(r"/run/secrets/(.+)", word)) and found[1] not in words(service, "secrets"):
                wrong(f"service {name}: {word} is not among its secrets")
    for kind, names in used.items():
        defined = set(compose.get(kind) or {})
        for name in sorted(names ^ defined):
            wrong(f"{kind}: {name} is {'not defined' if name in names else 'not used'}")
    for name, secret in (compose.get("secrets") or {}).items():
        file = pathlib.PurePath(secret.get("file", ""))
        if file.parent != pathlib.PurePath("deploy/secrets") or not (secrets / file.name).is_file():
            wrong(f"secret {name}: deploy/make-secrets.sh does not write {file}")


def check_dependency(name, service, other, need, services):
    condition = need.get("condition")
    if other not in services:
        return wrong(f"service {name}: it depends on {other}, which is not there")
    if condition not in CONDITIONS:
        wrong(f"service {name}: {condition!r} is no condition")
    if condition == "service_healthy" and not services[other].get("healthcheck"):
        wrong(f"service {name}: it waits for the health of {other}, which has no check")
    if condition == "service_completed_successfully" and services[other].get("restart") != "on-failure":
        wrong(f"service {name}: it waits for the end of {other}, which is started again for ever")


def check_ports(services):
    taken = {}
    for name, service in services.items():
        replicas = (service.get("deploy") or {}).get("replicas", 1)
        for port in words(service, "ports"):
            found = re.fullmatch(r"127\.0\.0\.1:(\d+)(?:-(\d+))?:(\d+)", port)
            if not found:
                wrong(f"service {name}: port {port} is not 127.0.0.1:HOST:CONTAINER")
                continue
            numbers = range(int(found[1]), int(found[2] or found[1]) + 1)
            if len(numbers) < replicas:
                wrong(f"service {name}: {replicas} replicas can't share the ports {port}")
            for number in numbers:
                if taken.setdefault(number, name) != name:
                    wrong(f"port {number} is published by {taken[number]} and {name}")
            if name == "api" and str(service["environment"].get("API__LISTEN", "")).rpartition(":")[2] != found[3]:
                wrong(f"service {name}: port {port} leads to none that it listens on")


def check_environment(root, services, programs, secrets):
    kafka = (root / "crates/local-stack/src/kafka.rs").read_text()
    kafka_settings = set(re.findall(r'\(\s*"([a-z.]+)",', kafka))
    for name, service in services.items():
        environment = service.get("environment") or {}
        for variable, value in environment.items():
            if not isinstance(value, str):
                wrong(f"service {name}: {variable} is not text; put it in quotes")
        if service.get("image") == OURS:
            program = programs.get(str(next(iter(words(service, "command")), "")))
            if program:
                check_our_environment(name, service, program, secrets)
            elif environment:
                wrong(f"service {name}: its program reads no settings")
            continue
        image = service.get("image", "").rpartition(":")[0]
        for variable in environment:
            setting = variable.removeprefix("KAFKA_").lower().replace("_", ".")
            is_kafkas = image == "apache/kafka" and variable.startswith("KAFKA_") and setting in kafka_settings
            if not is_kafkas and variable not in IMAGE_VARIABLES.get(image, set()):
                wrong(f"service {name}: {variable} is not known for {image}")


def check_our_environment(name, service, program, secrets):
    given = set()
    for variable in service.get("environment") or {}:
        if variable in program.plain:
            continue
        path = tuple(variable.removeprefix(f"{program.prefix}__").lower().split("__"))
        if not variable.startswith(f"{program.prefix}__") or path not in program.settings:
            wrong(f"service {name}: {program.name} does not read {variable}")
        given.add(path)
    for secret in words(service, "secrets"):
        file = secrets / secret
        if secret.endswith(".toml") and file.is_file():
            found = setting_names(file.read_text())
            given |= found
            for setting in sorted(found - program.settings):
                wrong(f"secret {secret}: {program.name} has no setting {'.'.join(setting)}")
    for setting in sorted(program.required - given):
        wrong(f"service {name}: {program.name} needs {'.'.join(setting)}, which nothing gives")
    admin = str((service.get("environment") or {}).get(f"{program.prefix}__ADMIN_LISTEN", ""))
    port = admin.rpartition(":")[2]
    if f"http://127.0.0.1:{port}/readyz" not in (service.get("healthcheck") or {}).get("test", []):
        wrong(f"service {name}: its health check does not ask /readyz of its admin port, {admin or 'which is a free one'}")


def check_dockerfile(root, services):
    text = (root / "Dockerfile").read_text().replace("\\\n", " ")
    manifest = (root / "Cargo.toml").read_text()
    members = re.findall(r'"([a-z/-]+)"', re.search(r"members = \[(.*?)\]", manifest, re.S)[1])
    programs = {
        re.search(r'name = "([a-z-]+)"', (root / member / "Cargo.toml").read_text())[1]
        for member in members
        if (root / member / "src/main.rs").is_file()
    }
    build = re.search(r"cargo build (.*?)&&", text)
    built = set(re.findall(r"-p ([a-z-]+)", build[1] if build else ""))
    copied = re.search(r"&& cp (.*?) /programs/", text)
    copied = set(copied[1].split() if copied else [])
    for program in sorted(built - programs):
        wrong(f"Dockerfile: {program} is no program of the workspace")
    for program in sorted(built ^ copied):
        wrong(f"Dockerfile: {program} is {'built and not copied' if program in built else 'copied and not built'}")
    for name, service in services.items():
        program = next(iter(words(service, "command")), None)
        if service.get("image") == OURS and program not in copied:
            wrong(f"service {name}: its program {program} is not in the image")
    rust = re.search(r'rust-version = "([\d.]+)"', manifest)[1]
    if not re.search(rf"^FROM rust:{re.escape(rust)}\.\d+-[a-z]+ AS build$", text, re.M):
        wrong(f"Dockerfile: it does not build with Rust {rust}, as Cargo.toml says")
    if not re.search(r"^USER [1-9]", text, re.M):
        wrong("Dockerfile: the programs would run as root")
    ignored = (root / ".dockerignore").read_text().splitlines()
    for path in ("deploy", "target", ".git", ".firstcome"):
        if path not in ignored:
            wrong(f".dockerignore: {path} would be sent to the build")
    if "/deploy/secrets" not in (root / ".gitignore").read_text().splitlines():
        wrong(".gitignore: deploy/secrets could be committed")
    version = re.search(r"<kafka.version>(.*?)<", (root / "kafka/pom.xml").read_text())[1]
    if services.get("kafka", {}).get("image") != f"apache/kafka:{version}":
        wrong(f"service kafka: the tests run with Kafka {version}, its image is another")


def check_prometheus(root, services, programs):
    jobs = read_yaml(root / "deploy/prometheus/prometheus.yaml").get("scrape_configs") or []
    scraped = {target["names"][0]: target["port"] for job in jobs for target in job["dns_sd_configs"]}
    for name, program in programs.items():
        admin = str(services.get(name, {}).get("environment", {}).get(f"{program.prefix}__ADMIN_LISTEN", ""))
        if str(scraped.pop(name, None)) != admin.rpartition(":")[2]:
            wrong(f"prometheus.yaml: the admin port of {name} is {admin}, and not what is asked for metrics")
    for name in scraped:
        wrong(f"prometheus.yaml: there is no service {name}")


def check_dashboards(root):
    shown = registered_metrics(root)
    grafana = root / "deploy/grafana"
    sources = read_yaml(grafana / "provisioning/datasources/prometheus.yaml").get("datasources") or []
    uids = {source["uid"] for source in sources}
    dashboards, seen = sorted((grafana / "dashboards").glob("*.json")), set()
    if not dashboards:
        wrong("deploy/grafana/dashboards: there is none")
    for path in dashboards:
        dashboard = json.loads(path.read_text())
        if dashboard["uid"] in seen:
            wrong(f"{path.name}: its uid is another dashboard's too")
        seen.add(dashboard["uid"])
        for panel in dashboard["panels"]:
            if panel["datasource"]["uid"] not in uids:
                wrong(f"{path.name}: {panel['title']}: no data source {panel['datasource']['uid']}")
            for target in panel["targets"]:
                for name in sorted(names_in(target["expr"]) - shown):
                    wrong(f"{path.name}: {panel['title']}: nobody registers the metric {name}")


def names_in(expression):
    """Names of metrics in PromQL; what can't be one is reported as one."""
    rest = re.sub(r"\{[^}]*\}|\[[0-9a-z]+\]", "", expression)
    rest = re.sub(r"\b(by|without)\s*\([^)]*\)", "", rest)
    functions = set(re.findall(r"([a-z_][a-z0-9_]*)\s*\(", rest))
    names = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", rest))
    return names - (functions & PROMQL_FUNCTIONS) - PROMQL_WORDS


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    root = arguments.parse_args().root
    compose = read_yaml(root / "compose.yaml")
    programs = {program.name: program for program in (Program(root / package) for package in REPLICATED)}
    with tempfile.TemporaryDirectory() as folder:
        secrets = pathlib.Path(folder) / "secrets"
        subprocess.run([root / "deploy/make-secrets.sh", secrets], check=True, stdout=subprocess.DEVNULL)
        services = check_shape(compose)
        check_references(root, compose, services, secrets)
        check_ports(services)
        check_environment(root, services, programs, secrets)
    check_dockerfile(root, services)
    check_prometheus(root, services, programs)
    check_dashboards(root)
    for problem in problems:
        print(f"check-deploy: {problem}", file=sys.stderr)
    if not problems:
        print(f"check-deploy: {len(services)} services fit the source")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
