use std::sync::{Arc, atomic::AtomicBool};
fn main() {
    let mut host = rstdoctor::host::LiveHost::new(Arc::new(AtomicBool::new(false)));
    let o = rstdoctor::observe::observe(&mut host, &rstdoctor::observe::Plan::scan(std::time::Duration::from_secs(2)), &mut |_| {}).unwrap();
    let d = rstdoctor::diagnosis::diagnose(&o);
    println!("{:#?}", d.causes); println!("{} {:?}", d.summary, d.status); println!("{:?}", d.ledger);
    println!("{:?}", d.listeners); println!("{:?}", o.after.sources.iter().map(|s| (s.name, &s.failure, s.took)).collect::<Vec<_>>());
    println!("{:?}", o.reset_events.failure()); println!("{:?}", o.reset_events.value().map(|e| (&e.events, &e.missing, &e.tallies)));
}
