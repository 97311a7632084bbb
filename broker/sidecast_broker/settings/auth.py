"""What can be set of credentials: which are taken, and what they open.

Must not know the other sections, nor how a credential is read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sidecast_broker.core.auth.principal import Scheme
from sidecast_broker.settings.fields import SECRET, SECRET_IN_URL, Limit, listed, within

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"),
    *("HS256", "HS384", "HS512"),
)
"""What tokens can be signed with (RFC 7518, RFC 8037); `none` is no signature."""


class Auth(Struct, frozen=True):
    """Who may open a stream."""

    required: Annotated[
        Literal["auto", "true", "false"],
        "Whether requests need a credential. `auto` is off only while no scheme is configured and both "
        "listeners are on loopback addresses; `true` without a scheme answers 401 to everything; `false` "
        "elsewhere than on loopback needs `auth.insecure`.",
    ] = "auto"
    insecure: Annotated[
        bool,
        "Allow `auth.required = false` on addresses that other machines can reach; alone it switches "
        "nothing off. The flag `--insecure` sets both.",
    ] = False
    jwt_issuer: Annotated[
        str,
        "Issuer of the tokens that are accepted, exactly as their `iss`. Without one of the three ways to "
        "get keys below, they are found by OpenID Connect discovery.",
    ] = ""
    jwt_audience: Annotated[
        str, "Whom tokens must be meant for (`aud`): any of these, separated by commas."
    ] = ""
    jwt_jwks_url: Annotated[
        str, "URL of the issuer's JWK set: `https://`, or `http://` on a loopback address."
    ] = ""
    jwt_jwks_file: Annotated[
        str, "Path of a file that holds the issuer's JWK set; read again when it changes."
    ] = ""
    jwt_secret: Annotated[
        str,
        SECRET,
        "Secret that is shared with the issuer, at least 32 bytes, for tokens signed with HS256, HS384 (48 "
        "bytes) or HS512 (64 bytes).",
    ] = ""
    jwt_algorithms: Annotated[
        str,
        "Algorithms that tokens may be signed with, separated by commas. Each key is used with those of "
        "its own type only, and where it names one, with that one only.",
    ] = ",".join(ALGORITHMS)
    jwt_leeway_s: Annotated[
        float, within(0, 120), "How far the issuer's clock may differ from this one, in seconds."
    ] = 30.0
    jwt_principal_claim: Annotated[str, Meta(min_length=1), "Claim that names the principal."] = "sub"
    jwt_tenant_claim: Annotated[
        str,
        Meta(min_length=1),
        "Claim that names the tenant which bounds the principal; a token without it is not bound to one.",
    ] = "tenant"
    jwt_grants_claim: Annotated[
        str, Meta(min_length=1), "Claim with the list of grants, each `tenant/agent/task`."
    ] = "sidecast_grants"
    jwt_rights_claim: Annotated[
        str, Meta(min_length=1), "Claim with the list of rights: `publish`, `admin`."
    ] = "sidecast_rights"
    jwks_s: Annotated[
        float, within(1, 86400), "How often the issuer's keys are fetched again, in seconds."
    ] = 300.0
    jwks_interval_s: Annotated[
        float,
        within(1, 3600),
        "Least time between two fetches of the issuer's keys, in seconds, however many tokens name keys "
        "that are not known.",
    ] = 10.0
    api_keys_file: Annotated[
        str,
        "Path of a TOML file with the SHA-256 hashes of API keys and who holds them; read again when it "
        "changes. `sidecast token api-key` makes its entries.",
    ] = ""
    mtls_principal: Annotated[
        Literal["none", "cn", "uri", "dns", "email"],
        "What names the principal in a client's certificate: the subject's common name, or the alternative "
        "name of that kind; `none`: certificates name nobody.",
    ] = "none"
    ticket_secret: Annotated[
        str,
        SECRET,
        "Secret that tickets and the page tokens of lists are made with, at least 32 bytes, the same on "
        "all replicas. Empty: random, so that both are good at the process that made them only.",
    ] = ""
    ticket_secret_previous: Annotated[
        str, SECRET, "The secret before, while it is replaced: what was made with it is still taken."
    ] = ""
    ticket_ttl_s_max: Annotated[
        int,
        within(1, 3600),
        "Longest time a ticket opens streams, in seconds; those it opened live as long as the credential "
        "it was made with.",
    ] = 300
    expiring_s: Annotated[
        float,
        within(0, 3600),
        "Time before the end of its credential at which a stream is told of it, in seconds.",
    ] = 30.0
    revocation_s: Annotated[
        int,
        within(60, 366 * 86400),
        "Time a revocation lives, in seconds: at least as long as credentials do, for one that outlives it "
        "is accepted again. The same for all brokers of a stream.",
    ] = 86400
    refusal_floor_ms: Annotated[
        int,
        within(0, 10_000),
        "Time from a request to the answer that there is no such task, or none for who asks, in ms; it "
        "leaves after a whole number of these, so that what took how long tells nothing.",
    ] = 100
    webhook_url: Annotated[
        str,
        SECRET_IN_URL,
        "URL that is asked by `POST` whether a principal may watch a task they neither own nor have a "
        'grant for; `200` with `{"allow": true}` allows it. Empty asks nobody.',
    ] = ""
    tickets_per_minute_max: Annotated[Limit, "Tickets per minute for one principal. 0: no limit."] = 600
    webhook_timeout_s: Annotated[
        float, within(0.05, 30), "Time after which no answer of the webhook is a no, in seconds."
    ] = 2.0
    webhook_cache_s: Annotated[
        float, within(0, 300), "Time an answer of the webhook holds, yes or no, in seconds; 0 asks anew."
    ] = 5.0

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The kinds of credential that are configured; tickets are made with any of them."""
        jwt = (self.jwt_issuer, self.jwt_audience, self.jwt_jwks_url, self.jwt_jwks_file, self.jwt_secret)
        configured: dict[Scheme, bool] = {
            "jwt": any(jwt),
            "api_key": bool(self.api_keys_file),
            "mtls": self.mtls_principal != "none",
        }
        return tuple(scheme for scheme, is_configured in configured.items() if is_configured)

    @property
    def jwt_audiences(self) -> tuple[str, ...]:
        """The audiences of `jwt_audience`."""
        return listed(self.jwt_audience)

    @property
    def jwt_algorithm_names(self) -> tuple[str, ...]:
        """The algorithms of `jwt_algorithms`."""
        return listed(self.jwt_algorithms)
