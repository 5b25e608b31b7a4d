//! The market: prices of 20 invented symbols, which follow geometric Brownian motion.
//!
//! Owns the prices and the random numbers. Never reads a clock. The invariant: the same seed and
//! the same rate give the same prices.

use std::f64::consts::TAU;

/// Seconds of trading in a year: 252 days of six and a half hours.
const TRADING_YEAR: f64 = 252.0 * 6.5 * 3600.0;
/// Growth per year.
const DRIFT: f64 = 0.05;
/// The smallest price.
const PRICE_MIN: f64 = 0.01;

/// A symbol of the market.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Name, which is part of channels and routing keys.
    pub name: &'static str,
    /// Name of the company.
    pub company: &'static str,
    /// First price.
    pub open: f64,
    /// Standard deviation of the growth in a year.
    volatility: f64,
}

const fn symbol(name: &'static str, company: &'static str, open: f64, volatility: f64) -> Symbol {
    Symbol { name, company, open, volatility }
}

/// The symbols.
pub const SYMBOLS: [Symbol; 20] = [
    symbol("ALDR", "Alder Timber", 42.50, 0.22),
    symbol("BASN", "Basin Water", 67.20, 0.16),
    symbol("BRCK", "Brickfield Homes", 28.90, 0.31),
    symbol("CIND", "Cinder Energy", 93.40, 0.42),
    symbol("COVE", "Cove Shipping", 15.75, 0.38),
    symbol("DUNE", "Dune Glass", 121.00, 0.27),
    symbol("ELMS", "Elms Pharma", 210.30, 0.35),
    symbol("FERN", "Fern Foods", 54.60, 0.18),
    symbol("GALE", "Gale Turbines", 33.10, 0.47),
    symbol("HARB", "Harbour Bank", 78.85, 0.24),
    symbol("IRON", "Ironbridge Steel", 46.05, 0.33),
    symbol("JUNI", "Juniper Spirits", 19.40, 0.21),
    symbol("KILN", "Kiln Ceramics", 88.15, 0.29),
    symbol("LOOM", "Loom Textiles", 12.95, 0.36),
    symbol("MOSS", "Moss Robotics", 340.70, 0.52),
    symbol("NORD", "Nordlight Media", 61.25, 0.39),
    symbol("ORCH", "Orchard Fruit", 25.80, 0.20),
    symbol("PINE", "Pine Rail", 105.45, 0.19),
    symbol("QURY", "Quarry Stone", 71.90, 0.26),
    symbol("RUSH", "Rush Payments", 158.60, 0.58),
];

/// A new price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Index of the symbol.
    pub symbol: usize,
    /// Price.
    pub price: f64,
}

/// The prices of all symbols.
pub struct Market {
    random: fastrand::Rng,
    prices: [f64; SYMBOLS.len()],
    /// Time between two updates of a symbol, in years.
    step: f64,
    /// The second of two normal deviates that are made together.
    spare: Option<f64>,
}

impl Market {
    /// A market that makes `rate` updates per second, all symbols together. A second is `speed`
    /// seconds of trading.
    pub fn new(seed: u64, rate: f64, speed: f64) -> Market {
        Market {
            random: fastrand::Rng::with_seed(seed),
            prices: SYMBOLS.map(|symbol| symbol.open),
            step: speed * SYMBOLS.len() as f64 / rate / TRADING_YEAR,
            spare: None,
        }
    }

    /// The next price, of a random symbol.
    pub fn next_update(&mut self) -> Update {
        let symbol = self.random.usize(..SYMBOLS.len());
        let Symbol { volatility, .. } = SYMBOLS[symbol];
        let drift = (DRIFT - volatility * volatility / 2.0) * self.step;
        let change = drift + volatility * self.step.sqrt() * self.normal_deviate();
        let price = &mut self.prices[symbol];
        *price = (*price * change.exp()).max(PRICE_MIN);
        Update { symbol, price: *price }
    }

    /// A normal deviate, by the method of Box and Muller.
    fn normal_deviate(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.random.f64()).ln()).sqrt();
        let (sine, cosine) = (TAU * self.random.f64()).sin_cos();
        self.spare = Some(radius * sine);
        radius * cosine
    }
}

impl Update {
    /// The data of a publication: price, first price and time in microseconds since 1970.
    pub fn data(&self, time: u64) -> String {
        let open = SYMBOLS[self.symbol].open;
        format!(r#"{{"p":{:.2},"o":{open:.2},"t":{time}}}"#, self.price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_prices() {
        let updates = |seed| {
            let mut market = Market::new(seed, 1000.0, 60.0);
            (0..500).map(|_| market.next_update()).collect::<Vec<_>>()
        };
        assert_eq!(updates(7), updates(7));
        assert_ne!(updates(7), updates(8));
    }

    /// Mean and standard deviation of the logarithmic changes of a symbol, over a year from each
    /// seed.
    fn changes(symbol: usize) -> (f64, f64) {
        let mut found = Vec::new();
        for seed in 0..2000 {
            // Ten steps of a tenth of a year, so that the drift is seen beside the spread.
            let mut market = Market::new(seed, SYMBOLS.len() as f64, TRADING_YEAR / 10.0);
            let mut last = SYMBOLS[symbol].open;
            let updates = (0..200).map(|_| market.next_update());
            for Update { price, .. } in updates.filter(|update| update.symbol == symbol) {
                found.push((price / last).ln());
                last = price;
            }
        }
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        let squares = found.iter().map(|change| (change - mean).powi(2)).sum::<f64>();
        (mean, (squares / found.len() as f64).sqrt())
    }

    #[test]
    fn logarithms_of_prices_grow_with_the_drift_and_spread_with_the_volatility() {
        for symbol in [0, 7, 19] {
            let Symbol { volatility, .. } = SYMBOLS[symbol];
            let (mean, spread) = changes(symbol);
            let wanted_spread = volatility * 0.1_f64.sqrt();
            let wanted_mean = (DRIFT - volatility * volatility / 2.0) * 0.1;
            // Some 20,000 changes: four standard errors.
            let error = 4.0 * wanted_spread / 20_000_f64.sqrt();
            assert!((mean - wanted_mean).abs() < error, "{symbol}: {mean} {wanted_mean}");
            assert!((spread / wanted_spread - 1.0).abs() < 0.03, "{symbol}: {spread}");
        }
    }

    #[test]
    fn every_symbol_is_updated_and_stays_positive() {
        let mut market = Market::new(3, 100.0, 1e7);
        let mut seen = [0; SYMBOLS.len()];
        for _ in 0..20_000 {
            let update = market.next_update();
            assert!(update.price >= PRICE_MIN);
            seen[update.symbol] += 1;
        }
        assert!(seen.iter().all(|count| *count > 800), "{seen:?}");
    }

    #[test]
    fn the_data_of_a_publication_fits_a_short_frame() {
        let update = Update { symbol: 14, price: 340.701 };
        let data = update.data(1_764_237_600_123_456);
        assert_eq!(data, r#"{"p":340.70,"o":340.70,"t":1764237600123456}"#);
        let push = format!(r#"{{"channel":"live:{}","pub":{{"data":{data}}}}}"#, SYMBOLS[14].name);
        assert!(push.len() <= 125, "a header of two bytes: {push}");
    }
}
