"""Knows nothing of Muster but what reflection says, and asks it for the fleet; then tries what must be refused."""

import argparse
import contextlib
import datetime
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# How long something may take, in seconds: the first scan of the files of a busy machine takes idle time alone.
PATIENCE = 600.0
SERVICES = {
    "grpc.health.v1.Health",
    "muster.v1.AdminService",
    "muster.v1.EnrollmentService",
    "muster.v1.FleetService",
    "muster.v1.IngestService",
    "muster.v1.LogService",
    "muster.v1.SnapshotService",
}


class Failure(Exception):
    """Something is not as it must be."""


def expect(holds, otherwise):
    if not holds:
        raise Failure(otherwise)


def until(what, look):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise Failure(f"waited {PATIENCE:.0f} s for {what}")


# ---------------------------------------------------------------- a collector and an agent


class Muster:
    """A collector and an agent in a folder, on a free port of loopback."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.data = folder / "collector"
        self.state = folder / "agent"
        self.log = folder / "collector.log"
        self.processes = []

    def run(self, program, *args):
        command = [self.programs / program, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ENVIRONMENT, check=False)
        expect(done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def ctl(self, *args):
        return self.run("musterctl", "--collector", f"https://{self.address}", "--credential", self.data / "admin.pem", *args)

    def start(self, program, log, *args):
        with open(log, "wb") as output:
            process = subprocess.Popen([self.programs / program, *args], stdout=output, stderr=output, env=ENVIRONMENT)
        self.processes.append(process)
        return process

    def start_collector(self):
        self.run("muster-collector", "init", "--data", self.data, "--name", "c1", "--listen", self.address)
        process = self.start("muster-collector", self.log, "run", "--data", self.data)

        def listens():
            expect(process.poll() is None, f"the collector ended:\n{self.log.read_text()}")
            host, port = self.address.split(":")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                return True
            return False

        until("the collector to listen", listens)

    def start_agent(self):
        enroll = self.folder / "enroll.toml"
        config = self.folder / "agent.toml"
        config.write_text("")
        self.ctl("token", "create", "--enroll-file", enroll)
        agent = ["--config", config, "--state", self.state]
        self.run("muster-agent", *agent, "enroll", "--file", enroll)
        self.start("muster-agent", self.folder / "agent.log", *agent, "run")

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()


# No proxy between loopback and loopback, and metrics on no port at all.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "MUSTER_METRICS_LISTEN": ""}


# ---------------------------------------------------------------- credentials


def blocks(pem):
    """Splits PEM into (private keys, certificates)."""
    found = [(match[1], match[0]) for match in re.finditer(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n?", pem, re.DOTALL)]
    return [text for kind, text in found if kind.endswith("PRIVATE KEY")], [text for kind, text in found if kind == "CERTIFICATE"]


def channel(muster, ca, key=None, chain=None):
    credentials = grpc.ssl_channel_credentials(
        ca.encode(), key.encode() if key else None, chain.encode() if chain else None
    )
    # One attempt: what is refused must not look like a server that is away.
    options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    return grpc.secure_channel(muster.address, credentials, options)


def forge(issuer_key, issuer, uri, begins, ends):
    """Makes a client certificate for `uri`, signed by `issuer_key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(issuer_key, None if not isinstance(issuer_key, ec.EllipticCurvePrivateKey) else hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
    )


# ---------------------------------------------------------------- by reflection alone


class Reflected:
    """Calls methods by their names, with messages made from what reflection says."""

    def __init__(self, secure_channel):
        self.channel = secure_channel
        self.database = ProtoReflectionDescriptorDatabase(secure_channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return set(self.database.get_services())

    def call(self, service, method, request):
        descriptor = self.pool.FindServiceByName(service).FindMethodByName(method)
        request_class = message_factory.GetMessageClass(descriptor.input_type)
        response_class = message_factory.GetMessageClass(descriptor.output_type)
        stub = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        response = stub(json_format.ParseDict(request, request_class()), timeout=10)
        return json_format.MessageToDict(response, preserving_proto_field_name=True)


def ask_fleet(muster, ca):
    file = muster.folder / "auditor.pem"
    muster.ctl("credentials", "create", "--role", "auditor", "--name", "ann", "--out", file)
    keys, certificates = blocks(file.read_text())
    with channel(muster, ca, keys[0], certificates[0]) as secure:
        client = Reflected(secure)
        services = client.services()
        expect(services >= SERVICES, f"reflection does not list {sorted(SERVICES - services)}, only {sorted(services)}")
        print("services:", *sorted(services), sep="\n  ")
        active = {"filter": "state = active"}
        hosts = until("an active host in ListHosts", lambda: client.call("muster.v1.FleetService", "ListHosts", active).get("hosts"))
        print("ListHosts:", json.dumps(hosts[0], indent=2))
        expect(hosts[0]["hostname"] == socket.gethostname(), f"not this host: {hosts}")
        summary = client.call("muster.v1.FleetService", "GetFleetSummary", {})
        expect(int(summary["hosts"]) == 1 and summary["controls"], f"not the fleet: {summary}")
        for control in summary["controls"]:
            counted = sum(int(number) for number in control["counts"].values())
            expect(counted == 1, f"the counts of {control['control_id']} are not those of one host: {control}")
        print(f"GetFleetSummary: {summary['hosts']} host, {len(summary['controls'])} controls")
        baselines = until(
            "a baseline in ListFileBaselines",
            lambda: client.call("muster.v1.FleetService", "ListFileBaselines", {"host": hosts[0]["id"]}).get("baselines"),
        )
        expect(baselines[0]["baseline"]["reason"] == "first scan", f"not the first baseline: {baselines}")
        changes = client.call("muster.v1.FleetService", "ListFileChanges", {"filter": "state = open"})
        expect(changes.keys() <= {"changes", "next_page_token"}, f"not changes of files: {changes}")
        client.call("muster.v1.FleetService", "ListExplainedChanges", {})
        holders = client.call("muster.v1.FleetService", "ListFileHolders", {"path": "/etc/passwd"})
        expect(int(holders.get("watching_hosts", 0)) == 1, f"nobody watches /etc/passwd: {holders}")
        print(f"files: {baselines[0]['baseline']['entries']} entries, {len(changes.get('changes', []))} open changes")
        refuse_code(
            "an auditor acknowledges nothing",
            grpc.StatusCode.PERMISSION_DENIED,
            lambda: client.call("muster.v1.AdminService", "AcknowledgeFileChanges", {}),
        )
        refuse_code(
            "an auditor makes no tokens",
            grpc.StatusCode.PERMISSION_DENIED,
            lambda: client.call("muster.v1.AdminService", "CreateToken", {}),
        )


# ---------------------------------------------------------------- what must be refused


def refuse_code(what, code, act):
    try:
        answer = act()
    except grpc.RpcError as error:
        expect(error.code() == code, f"{what}: {error.code()} instead of {code}: {error.details()}")
        print(f"refused, {what}: {code.name}: {error.details()}")
    else:
        raise Failure(f"{what}: not refused but answered with {answer}")


def raw_list_hosts(muster, ca, key=None, chain=None):
    """ListHosts with an empty request and the bytes of the answer: no reflection, which needs a caller too."""
    with channel(muster, ca, key, chain) as secure:
        return secure.unary_unary("/muster.v1.FleetService/ListHosts")(b"", timeout=10)


def log_says(muster, since, *patterns):
    """Waits for a line of the collector's log, written after `since` bytes, that matches every pattern."""

    def look():
        lines = muster.log.read_text()[since:].splitlines()
        return [line for line in lines if all(re.search(pattern, line, re.IGNORECASE) for pattern in patterns)]

    try:
        line = until("the log", look)[0]
    except Failure:
        raise Failure(f"the collector's log has no line with {patterns} but:\n{muster.log.read_text()[since:]}") from None
    print(f"   log: {line}")


def refusals(muster, ca):
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    uri = "spiffe://c1/auditor/mallory"
    ca_key = serialization.load_pem_private_key((muster.data / "pki/ca.key").read_bytes(), None)
    ca_name = x509.load_pem_x509_certificate(ca.encode()).subject
    other_key = ec.generate_private_key(ec.SECP256R1())
    cases = [
        ("no certificate", None, None, [r"certificate"]),
        ("an expired certificate", *forge(ca_key, ca_name, uri, now - 2 * day, now - day), [r"expired"]),
        ("a certificate of another CA", *forge(other_key, ca_name, uri, now - day, now + day), [r"certificate"]),
    ]
    for what, key, chain, patterns in cases:
        since = len(muster.log.read_text())
        # The handshake fails, so that no call reaches a service: not UNAUTHENTICATED, not PERMISSION_DENIED.
        refuse_code(what, grpc.StatusCode.UNAVAILABLE, lambda k=key, c=chain: raw_list_hosts(muster, ca, k, c))
        log_says(muster, since, *patterns)

    keys, certificates = blocks((muster.state / "identity/tls.pem").read_text())
    since = len(muster.log.read_text())
    refuse_code(
        "an agent's certificate",
        grpc.StatusCode.PERMISSION_DENIED,
        lambda: raw_list_hosts(muster, ca, keys[0], certificates[0]),
    )
    log_says(muster, since, r"agent", r"ListHosts")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="folder of muster-agent, muster-collector and musterctl")
    programs = parser.parse_args().programs.resolve()
    with tempfile.TemporaryDirectory(prefix="muster-python-") as folder:
        muster = Muster(programs, Path(folder))
        try:
            muster.start_collector()
            muster.start_agent()
            ca = (muster.data / "pki/ca.pem").read_text()
            ask_fleet(muster, ca)
            refusals(muster, ca)
        except Failure as error:
            print(f"FAILED: {error}", file=sys.stderr)
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- end of {log.name}", *log.read_text().splitlines()[-20:], sep="\n", file=sys.stderr)
            return 1
        finally:
            muster.stop()
    print("everything as it must be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
