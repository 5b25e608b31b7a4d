//! Sections about clients: limits, timeouts, tokens and the personal channel.
//!
//! Owns the keys of `client`. Never checks a token.

use crate::base::secret::{Address, Secret};

use super::backend::OptionalProxy;
use super::section::section;
use crate::config::duration::ConfigDuration;

section! {
    /// Client connections: authentication, timeouts and limits.
    Client {
        /// Origins of the browser pages that may connect; `*` is a wildcard. The server's own host
        /// is always allowed. Empty: only the server's own host, and clients that send no Origin
        /// header.
        allowed_origins: Vec<String> = Vec::new(),
        /// Allow clients to connect without a token and to use every channel. Development only. A
        /// token that a client does send must be valid, private channels still need a token, and
        /// connection tokens do not expire.
        insecure: bool = false,
        /// Skip signature verification of tokens. Development only: anyone can forge a token.
        insecure_skip_token_signature_verify: bool = false,
        /// Allow clients to connect without a token, as anonymous users.
        allow_anonymous_connect_without_token: bool = false,
        /// Reject connection tokens that name no user (empty `sub` claim).
        disallow_anonymous_connection_tokens: bool = false,
        /// Include the server time in the connect reply.
        connect_include_server_time: bool = false,
        /// Interval between server pings.
        ping_interval: ConfigDuration = ConfigDuration::seconds(25),
        /// Time within which a client must answer a ping. It must be shorter than `ping_interval`.
        pong_timeout: ConfigDuration = ConfigDuration::seconds(8),
        /// Interval between checks that positioned subscribers have the channel's current stream
        /// position; a subscriber that missed a publication has to subscribe again. 0s: no checks.
        channel_position_check_delay: ConfigDuration = ConfigDuration::seconds(40),
        /// Time within which a new connection must send its connect command. After it, the server
        /// closes the connection.
        stale_close_delay: ConfigDuration = ConfigDuration::seconds(10),
        /// Grace period to refresh a connection after its token expires. After it, the server
        /// closes the connection.
        expired_close_delay: ConfigDuration = ConfigDuration::seconds(25),
        /// Grace period to refresh a subscription after its token expires. After it, the server
        /// ends the subscription.
        expired_sub_close_delay: ConfigDuration = ConfigDuration::seconds(25),
        /// HTTP header that contains the user's id, for clients that no token and no connect proxy
        /// identifies. Set it only behind a gateway that clients cannot bypass and that overwrites
        /// the header: otherwise any client can claim to be any user. It has no effect with
        /// `client.insecure` or `client.allow_anonymous_connect_without_token`. Empty: no header.
        user_id_http_header: String = String::new(),
        /// Maximum number of client connections on this node. 0: as many as open files and memory
        /// allow.
        connection_limit: usize = 0,
        /// Maximum number of new client connections per second. 0: unlimited.
        connection_rate_limit: usize = 0,
        /// Maximum number of connections per user on this node. 0: unlimited.
        user_connection_limit: usize = 0,
        /// Maximum number of connections to the public port per client address on this node, up to
        /// 16383. An IPv6 client counts by its /64 network. Further connections are closed; behind
        /// a trusted proxy they are answered with 429. 0: unlimited.
        address_connection_limit: usize = 0,
        /// Maximum number of new connections to the public port per client address and second, up
        /// to 65535. Refused attempts do not count. 0: unlimited.
        address_connection_rate_limit: usize = 0,
        /// Maximum number of commands per client and second, up to 1000000. A command is a message
        /// of a client: connect, subscribe, publish, a pong, and so on. The server reads the
        /// further commands of a client later, and TCP then slows the client down; no command is
        /// lost. 0: unlimited.
        command_rate_limit: usize = 0,
        /// Number of commands that a client may send at once after a pause, up to 1000000. Raise it
        /// for clients that make many subscriptions when they connect. 0: as many as
        /// `command_rate_limit`.
        command_rate_burst: usize = 0,
        /// Maximum number of subscriptions per client.
        channel_limit: u16 = 128,
        /// Maximum number of unsent bytes per client. The server closes a client that exceeds it as
        /// a slow consumer (code 3008). Raise it for large bursts to slow networks, and for clients
        /// that miss many publications: a larger recovery is refused, and the client gets
        /// `recovered: false`.
        queue_max_size: usize = 1_048_576,
        /// Maximum number of publications that a client's history request returns.
        history_max_publication_limit: usize = 300,
        /// Maximum number of publications that one recovery returns. A client that missed more gets
        /// `recovered: false`.
        recovery_max_publication_limit: usize = 300,
        /// Verification of connection tokens, and of subscription tokens unless
        /// `client.subscription_token` is enabled.
        token: Token = Token::default(),
        /// Separate verification of subscription tokens.
        subscription_token: SubscriptionToken = SubscriptionToken::default(),
        /// Personal channels of users.
        subscribe_to_user_personal_channel: PersonalChannel = PersonalChannel::default(),
        /// Proxies: questions to the backend about clients.
        proxy: ClientProxies = ClientProxies::default(),
        /// Hooks: events about clients for the backend.
        hook: ClientHooks = ClientHooks::default(),
    }
}

section! {
    /// Proxies: questions to the backend about clients.
    ClientProxies {
        /// Connect proxy: the backend authenticates clients that connect without a token.
        connect: OptionalProxy = OptionalProxy::default(),
        /// Refresh proxy: the backend extends connections that expire.
        refresh: OptionalProxy = OptionalProxy::default(),
    }
}

section! {
    /// Hooks: events about clients for the backend.
    ClientHooks {
        /// Disconnect hook: the backend is notified when a client disconnects.
        disconnect: OptionalProxy = OptionalProxy::default(),
    }
}

section! {
    /// Verification of tokens.
    Token {
        /// Secret for tokens signed with HS256, HS384 or HS512. Empty: such tokens are rejected.
        hmac_secret_key: Secret = Secret::default(),
        /// Previous HMAC secret, accepted beside `hmac_secret_key` while the secret is being
        /// replaced. Empty: only the current secret is accepted.
        hmac_previous_secret_key: Secret = Secret::default(),
        /// Unix time in seconds until which `hmac_previous_secret_key` is accepted. 0: without an
        /// end.
        hmac_previous_secret_key_valid_until: u64 = 0,
        /// Public key in PEM for tokens signed with RS256, RS384 or RS512. Empty: such tokens are
        /// rejected.
        rsa_public_key: String = String::new(),
        /// Public key in PEM for tokens signed with ES256, ES384 or ES512. Empty: such tokens are
        /// rejected.
        ecdsa_public_key: String = String::new(),
        /// URL of a JSON Web Key Set (http or https). When set, only its keys verify tokens.
        /// `{{name}}` in the URL is replaced by the named group of `issuer_regex` or
        /// `audience_regex`. Empty: no key set.
        jwks_public_endpoint: Address = Address::default(),
        /// Audience (`aud` claim) that a token must have. Empty: any audience.
        audience: String = String::new(),
        /// Regular expression that the token's audience must match. It is not anchored, as in
        /// Centrifugo: write `^...$` to match the whole audience. Empty: any audience.
        audience_regex: String = String::new(),
        /// Issuer (`iss` claim) that a token must have. Empty: any issuer.
        issuer: String = String::new(),
        /// Regular expression that the token's issuer must match. It is not anchored, as in
        /// Centrifugo: write `^...$` to match the whole issuer. Empty: any issuer.
        issuer_regex: String = String::new(),
        /// Claim that holds the user ID. Empty: `sub`.
        user_id_claim: String = String::new(),
        /// Permit any pattern in the groups that `jwks_public_endpoint` names. Without it, they
        /// must be lists of values, such as `(?P<tenant>one|two)`, because the claims of a token
        /// that is not verified yet choose where its keys are fetched.
        insecure_skip_jwks_endpoint_safety_check: bool = false,
    }
}

section! {
    /// Separate verification of subscription tokens.
    SubscriptionToken {
        /// Verify subscription tokens with the keys of this section instead of those of
        /// `client.token`.
        enabled: bool = false,
        ..
        /// Verification of subscription tokens.
        token: Token
    }
}

section! {
    /// Personal channels: the server subscribes every client that has a user to the channel of that
    /// user.
    PersonalChannel {
        /// Subscribe every client that has a user to the user's personal channel, for example
        /// `#42`.
        enabled: bool = false,
        /// Namespace of the personal channels. Empty: no namespace.
        personal_channel_namespace: String = String::new(),
        /// Allow one connection per user: a new connection of a user closes the previous one.
        single_connection: bool = false,
    }
}
