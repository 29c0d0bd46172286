"""The command line of each process of the control plane."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

# The controllers that real drains, garbage collection and access need. Without the disruption controller
# every eviction under a budget is refused.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "validatingadmissionpolicy-status-controller",
)

# kwok renews the lease of each fake node every quarter of this. A hundred nodes then cost 2.5 writes a
# second; the grace below it lets the control plane miss three of them before it calls a node silent.
NODE_LEASE_SECONDS = 160
NODE_GRACE_SECONDS = 300
KUBELET_GRACE_SECONDS = 20
"""The same for real kubelets, which say every few seconds that they live: a node that reboots is missed."""
SERVICE_NETWORK = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
"""Address of the service `kubernetes`, the first one of that network."""


@dataclass(frozen=True)
class Ports:
    """The loopback ports of one plane."""

    etcd: int
    etcd_peer: int
    apiserver: int
    kwok: int


@dataclass(frozen=True)
class Files:
    """Where one plane keeps its files."""

    folder: Path
    logs: Path

    @property
    def etcd_data(self) -> Path:
        """etcd's data folder."""
        return self.folder / "etcd"

    @property
    def authority(self) -> Path:
        """The certificate authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """The API server's certificate."""
        return self.folder / "server.crt"

    @property
    def server_key(self) -> Path:
        """The API server's private key."""
        return self.folder / "server.key"

    @property
    def token_key(self) -> Path:
        """The private key that signs service account tokens."""
        return self.folder / "tokens.key"

    @property
    def token_public_key(self) -> Path:
        """The public key that checks service account tokens."""
        return self.folder / "tokens.pub"

    @property
    def audit_policy(self) -> Path:
        """What the API server writes into the audit log."""
        return self.folder / "audit.yaml"

    @property
    def audit_log(self) -> Path:
        """One JSON document a line for each request that the API server answered."""
        return self.logs / "audit.log"

    @property
    def egress(self) -> Path:
        """How the API server reaches kubelets."""
        return self.folder / "egress.yaml"

    @property
    def kubelet_client_certificate(self) -> Path:
        """The API server's certificate as a client of kubelets."""
        return self.folder / "kubelet-client.crt"

    @property
    def kubelet_client_key(self) -> Path:
        """The private key of that certificate."""
        return self.folder / "kubelet-client.key"

    @property
    def stages(self) -> Path:
        """kwok's configuration: how fake nodes and their pods behave."""
        return self.folder / "kwok.yaml"

    def kubeconfig(self, name: str) -> Path:
        """The kubeconfig of one of the plane's own accounts."""
        return self.folder / f"{name}.kubeconfig"


def etcd(program: Path, files: Files, ports: Ports) -> list[str]:
    """etcd, without fsync: the data does not outlive the plane."""
    client, peer = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    return [
        str(program),
        "--name=sandbox",
        f"--data-dir={files.etcd_data}",
        "--unsafe-no-fsync",
        # Without it the API server sends no bookmarks for quiet kinds, and watchers take their streams for dead.
        "--watch-progress-notify-interval=5s",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=sandbox={peer}",
        "--log-level=warn",
    ]


def apiserver(program: Path, files: Files, ports: Ports) -> list[str]:
    """The API server, with the default admission plugins and an audit log of all finished requests."""
    return [
        str(program),
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={ports.apiserver}",
        f"--tls-cert-file={files.server_certificate}",
        f"--tls-private-key-file={files.server_key}",
        f"--client-ca-file={files.authority}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={files.token_key}",
        f"--service-account-key-file={files.token_public_key}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allow-privileged=true",
        # There is no kubelet and no proxy that would use the endpoints of the kubernetes service.
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={files.audit_policy}",
        f"--audit-log-path={files.audit_log}",
        # In megabytes. A rotation in the middle of a count would lose what was not read yet.
        "--audit-log-maxsize=8192",
        "--profiling=false",
    ]


def with_kubelets(files: Files) -> list[str]:
    """What the API server needs to know besides when there are real kubelets."""
    return [
        "--enable-admission-plugins=NodeRestriction",
        f"--egress-selector-config-file={files.egress}",
        f"--kubelet-client-certificate={files.kubelet_client_certificate}",
        f"--kubelet-client-key={files.kubelet_client_key}",
        f"--kubelet-certificate-authority={files.authority}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def egress_document(proxy: Path) -> str:
    """Have the API server reach kubelets through the HTTP CONNECT proxy on this unix socket."""
    return f"""\
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {{uds: {{udsName: "{proxy}"}}}}
"""


def controller_manager(program: Path, files: Files, *, kubelets: bool) -> list[str]:
    """The controllers, without leader election: there is one. kubelets: whether nodes have real ones."""
    grace = KUBELET_GRACE_SECONDS if kubelets else NODE_GRACE_SECONDS
    return [
        str(program),
        f"--kubeconfig={files.kubeconfig('controller-manager')}",
        "--leader-elect=false",
        "--secure-port=0",
        f"--service-account-private-key-file={files.token_key}",
        f"--root-ca-file={files.authority}",
        "--use-service-account-credentials=true",
        f"--node-monitor-grace-period={grace}s",
        f"--controllers={','.join(CONTROLLERS)}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]


def scheduler(program: Path, files: Files) -> list[str]:
    """The scheduler, without leader election: there is one."""
    return [
        str(program),
        f"--kubeconfig={files.kubeconfig('scheduler')}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def kwok(program: Path, kubeconfig: Path, stages: Path, port: int) -> list[str]:
    """kwok, which plays the kubelets of the nodes that carry its annotation and of no others."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--config={stages}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        f"--node-lease-duration-seconds={NODE_LEASE_SECONDS}",
        # Without an address of its own it would listen on a fixed port of all interfaces.
        f"--server-address=127.0.0.1:{port}",
    ]


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now; held together while asking, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]
