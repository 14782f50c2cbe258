//! What a cause is called on the screen.

use crate::timeline::Place;

/// A cause and its place in so many columns: where it happens is worth more than the end of its title.
pub fn named(title: &str, place: &Place, room: usize) -> String {
    let place = place.to_string();
    if place.is_empty() {
        return title.to_owned();
    }
    let left = room.saturating_sub(place.chars().count() + 2).max(8);
    match title.chars().count() > left {
        true => format!("{}…, {place}", title.chars().take(left - 1).collect::<String>().trim_end()),
        false => format!("{title}, {place}"),
    }
}
