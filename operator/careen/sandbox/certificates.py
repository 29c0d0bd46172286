"""The keys of one control plane: its authority, its server's certificate, and its clients'."""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=30)
SERVER_NAMES = ("localhost", "kubernetes.default.svc")
# A virtual machine with user-mode networking sees its host's loopback under 10.0.2.2; the last is the service's.
SERVER_ADDRESSES = ("127.0.0.1", "10.0.2.2", "10.96.0.1")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes


def _private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common: str, organizations: Iterable[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """A certificate authority that lives as long as one control plane."""

    def __init__(self) -> None:
        # P-256 throughout: an RSA key for each client would add seconds to every start.
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("careen-sandbox-ca")
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue_server(self) -> Pair:
        """Issue the API server's certificate, good for loopback and for virtual machines on this host."""
        return self._issue_server(_name("kube-apiserver"), SERVER_NAMES, SERVER_ADDRESSES)

    def issue_kubelet_server(self, node: str, address: str) -> Pair:
        """Issue the certificate that a node's kubelet serves with, under the node's name and address."""
        return self._issue_server(_name(f"system:node:{node}", ["system:nodes"]), [node], [address])

    def issue_client(self, user: str, groups: Iterable[str] = ()) -> Pair:
        """Issue a client certificate; the API server reads the user's name and groups out of it."""
        return self._issue(_name(user, groups), ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def _issue_server(self, subject: x509.Name, names: Iterable[str], addresses: Iterable[str]) -> Pair:
        known: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        known += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, known)

    def _builder(self, subject: x509.Name, key: PrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # Backdated, since the clock of a virtual machine may be behind its host's.
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def _issue(self, subject: x509.Name, usage: x509.ObjectIdentifier, names: list[x509.GeneralName]) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_service_account_keys() -> tuple[bytes, bytes]:
    """Make the pair that signs and checks service account tokens: private and public key as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _private_pem(key), public


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its owner may read, and return its path."""
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path
