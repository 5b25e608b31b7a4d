//! Sections about clients: limits, timeouts, tokens and the personal channel.
//!
//! Owns the keys of `client`. Never checks a token.

use crate::base::secret::{Address, Secret};

use super::backend::OptionalProxy;
use super::section::section;
use crate::config::span::Span;

section! {
    /// What clients may do and how long they may take.
    Client {
        /// Origins that browser pages may come from, `*` as wildcard; the server's own host
        /// always may.
        allowed_origins: Vec<String> = Vec::new(),
        /// Let clients connect without a token and do everything: for development only. Tokens
        /// that are given must still be valid, and channels with the private prefix still need
        /// one; the expiration of connection tokens is ignored.
        insecure: bool = false,
        /// Nobody looks at the signatures of tokens: for development only.
        insecure_skip_token_signature_verify: bool = false,
        /// Clients may connect without a token.
        allow_anonymous_connect_without_token: bool = false,
        /// Connection tokens must name a user.
        disallow_anonymous_connection_tokens: bool = false,
        /// The answer to a connect says the server's time.
        connect_include_server_time: bool = false,
        /// Time between pings.
        ping_interval: Span = Span::seconds(25),
        /// Time in which a pong must follow a ping; shorter than ping_interval.
        pong_timeout: Span = Span::seconds(8),
        /// Time between two checks that a channel's subscribers, where they are positioned, stand
        /// where its stream does; 0s: never.
        channel_position_check_delay: Span = Span::seconds(40),
        /// Time for a client to connect before its socket is closed.
        stale_close_delay: Span = Span::seconds(10),
        /// Time to refresh a connection after its token has expired.
        expired_close_delay: Span = Span::seconds(25),
        /// Time to refresh a subscription after its token has expired.
        expired_sub_close_delay: Span = Span::seconds(25),
        /// Connections of this node; 0: as many as it has room for.
        connection_limit: usize = 0,
        /// New connections in a second; 0: no limit.
        connection_rate_limit: usize = 0,
        /// Connections of one user on this node; 0: no limit.
        user_connection_limit: usize = 0,
        /// Subscriptions of one client.
        channel_limit: u16 = 128,
        /// Bytes that one client may be behind before it is closed as slow.
        queue_max_size: usize = 1_048_576,
        /// Publications that one call of a client for history may bring.
        history_max_publication_limit: usize = 300,
        /// Publications that one recovery may bring.
        recovery_max_publication_limit: usize = 300,
        /// What tokens are checked by.
        token: Token = Token::default(),
        /// What subscription tokens are checked by, where it is not what all are.
        subscription_token: SubscriptionToken = SubscriptionToken::default(),
        /// A channel of one's own.
        subscribe_to_user_personal_channel: PersonalChannel = PersonalChannel::default(),
        /// What the backend is asked about clients.
        proxy: ClientProxies = ClientProxies::default(),
        /// What the backend is told about clients.
        hook: ClientHooks = ClientHooks::default(),
    }
}

section! {
    /// What the backend is asked about clients.
    ClientProxies {
        /// Who a client without a token is.
        connect: OptionalProxy = OptionalProxy::default(),
        /// How much longer a connection holds whose time is over.
        refresh: OptionalProxy = OptionalProxy::default(),
    }
}

section! {
    /// What the backend is told about clients.
    ClientHooks {
        /// Whose connection has ended.
        disconnect: OptionalProxy = OptionalProxy::default(),
    }
}

section! {
    /// What tokens are checked by.
    Token {
        /// Secret of HS256, HS384 and HS512; empty: such tokens are refused.
        hmac_secret_key: Secret = Secret::default(),
        /// Secret that hmac_secret_key came after; tokens signed with it are still taken.
        hmac_previous_secret_key: Secret = Secret::default(),
        /// Unix time in seconds until which hmac_previous_secret_key is taken; 0: for ever.
        hmac_previous_secret_key_valid_until: u64 = 0,
        /// Public key of RS256, RS384 and RS512 in PEM; empty: such tokens are refused.
        rsa_public_key: String = String::new(),
        /// Public key of ES256, ES384 and ES512 in PEM; empty: such tokens are refused.
        ecdsa_public_key: String = String::new(),
        /// Address of a key set (JWKS), which then alone counts; `{{name}}` in it stands for a
        /// named group of issuer_regex or audience_regex.
        jwks_public_endpoint: Address = Address::default(),
        /// Audience (`aud`) that a token must be for; empty: any.
        audience: String = String::new(),
        /// Regular expression that the audience must contain a match of; empty: any. As in
        /// Centrifugo it is not anchored: write `^...$` to match the whole audience.
        audience_regex: String = String::new(),
        /// Issuer (`iss`) that a token must come from; empty: any.
        issuer: String = String::new(),
        /// Regular expression that the issuer must contain a match of; empty: any. As in
        /// Centrifugo it is not anchored: write `^...$` to match the whole issuer.
        issuer_regex: String = String::new(),
        /// Claim that names the user; empty: `sub`.
        user_id_claim: String = String::new(),
    }
}

section! {
    /// What subscription tokens are checked by, where it is not what all are.
    SubscriptionToken {
        /// Subscription tokens are checked by the keys of this section, not by client.token's.
        enabled: bool = false,
        ..
        /// What they are checked by.
        token: Token
    }
}

section! {
    /// A channel of one's own, to which the server subscribes every client that has a user.
    PersonalChannel {
        /// Whether there is one.
        enabled: bool = false,
        /// Namespace of such channels; empty: none.
        personal_channel_namespace: String = String::new(),
        /// A user's new connection closes the one before it.
        single_connection: bool = false,
    }
}
