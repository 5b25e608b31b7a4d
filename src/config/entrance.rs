//! The sentence of the startup banner that says how clients can connect and subscribe.
//!
//! Owns the sentence. Never decides about a client.

use super::sections::{Config, Token};

impl Config {
    /// How clients can connect and subscribe, and which key to set if they cannot.
    pub fn entrance(&self) -> String {
        let (client, channel) = (&self.client, &self.channel);
        if client.insecure {
            return "client.insecure is set: any client can connect and use any channel".to_owned();
        }
        let subscription = &client.subscription_token;
        let connects = [
            (client.token.verifies() || client.insecure_skip_token_signature_verify, "a token"),
            (client.proxy.connect.enabled, "the connect proxy"),
            (client.allow_anonymous_connect_without_token, "no token"),
        ];
        let connects: Vec<&str> =
            connects.into_iter().filter(|(given, _)| *given).map(|(_, by)| by).collect();
        if connects.is_empty() {
            return "no client can connect: set client.token.hmac_secret_key (or another key of \
                    client.token), client.proxy.connect.enabled or \
                    client.allow_anonymous_connect_without_token"
                .to_owned();
        }
        let named = channel.namespaces.iter().map(|namespace| &namespace.options);
        let subscribes = named.chain([&channel.without_namespace]).any(|options| {
            options.allow_subscribe_for_client
                || options.subscribe_proxy_enabled
                || options.allow_user_limited_channels
        });
        let by = connects.join(" or ");
        let tokens =
            client.token.verifies() || (subscription.enabled && subscription.token.verifies());
        match (subscribes, tokens) {
            (true, _) => format!("clients connect with {by}"),
            (false, true) => format!(
                "clients connect with {by} and subscribe only with a token: set \
                 channel.without_namespace.allow_subscribe_for_client to allow subscriptions \
                 without one"
            ),
            (false, false) => format!(
                "clients connect with {by}, but cannot subscribe: set \
                 channel.without_namespace.allow_subscribe_for_client, and \
                 allow_subscribe_for_anonymous for clients without a user"
            ),
        }
    }
}

impl Token {
    /// Whether a key is configured that can verify tokens.
    fn verifies(&self) -> bool {
        let keys = [
            self.hmac_secret_key.is_empty(),
            self.rsa_public_key.is_empty(),
            self.ecdsa_public_key.is_empty(),
            self.jwks_public_endpoint.is_empty(),
        ];
        keys.contains(&false)
    }
}
