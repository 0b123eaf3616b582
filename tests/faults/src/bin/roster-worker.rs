//! Provides services: `roster-worker URL SEED SERVICES PROVIDERS`. Lets its providers come, change and go at random.
//! After the line `rest` on its input it keeps what it has, and answers with a line of the instances that it provides;
//! after `go` it goes on; it ends with its input.

#![expect(clippy::print_stdout, reason = "this program's output")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::mpsc;
use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::provider::{ProvideOptions, Provider};
use coord_faults::random::Random;
use futures::executor::block_on;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, seed, services, providers] = &arguments[..] else {
        eprintln!("usage: roster-worker URL SEED SERVICES PROVIDERS");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let options = Options::parse(url).expect("a valid URL");
    let client = loop {
        match block_on(Client::connect(options.clone())) {
            Ok(client) => break client,
            Err(error) => eprintln!("connecting again: {error}"),
        }
        // The store is away: not at once again.
        std::thread::sleep(Duration::from_millis(200));
    };
    let random = Random::new(number(seed));
    let most = number(providers) as usize;
    let mut worker =
        Worker { client, random, services: number(services) as usize, most, providers: BTreeMap::new(), made: 0 };
    let mut resting = false;
    loop {
        let order =
            if resting { orders.recv().map_err(|_| mpsc::TryRecvError::Disconnected) } else { orders.try_recv() };
        match order {
            Ok(order) if order == "rest" => {
                resting = true;
                worker.report();
            }
            Ok(_) => resting = false,
            Err(mpsc::TryRecvError::Empty) => worker.change(),
            Err(mpsc::TryRecvError::Disconnected) => break,
        }
    }
    drop(worker.providers);
    if let Err(error) = block_on(worker.client.close(Duration::from_secs(20))) {
        eprintln!("closing: {error}");
    }
}

struct Worker {
    client: Client,
    random: Random,
    services: usize,
    most: usize,
    providers: BTreeMap<u64, Provider>,
    made: u64,
}

impl Worker {
    /// One provider comes, changes or goes.
    fn change(&mut self) {
        let add = self.providers.is_empty() || (self.providers.len() < self.most && self.random.chance(0.6));
        let result = if add {
            let service = format!("s{}", self.random.below(self.services));
            self.made += 1;
            let mut options = ProvideOptions::default();
            options.instance_id = Some(format!("p{}-{}", std::process::id(), self.made));
            block_on(self.client.provide(&service, "new", options)).map(|provider| {
                self.providers.insert(self.made, provider);
            })
        } else {
            let chosen = self.random.below(self.providers.len());
            let key = *self.providers.keys().nth(chosen).expect("there are as many");
            if self.random.chance(0.3) {
                block_on(self.providers[&key].update(&format!("{}", self.made)))
            } else {
                let provider = self.providers.remove(&key).expect("it is there");
                block_on(provider.close())
            }
        };
        if let Err(error) = result {
            eprintln!("{error}");
        }
        std::thread::sleep(self.random.between(Duration::ZERO, Duration::from_millis(20)));
    }

    /// Says what it provides: `service/instance` between spaces.
    fn report(&self) {
        let all: Vec<String> =
            self.providers.values().map(|p| format!("{}#{}", p.service(), p.instance_id())).collect();
        println!("{}", all.join(" "));
    }
}
