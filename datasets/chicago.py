#!/usr/bin/python3
"""Makes chicago.h5: daily ridership at one Chicago station, 2001-01-22 to 2016-08-28.

    datasets/chicago.py [--out datasets/chicago.h5]

Needs the Debian packages r-base-core, r-cran-modeldata and python3-h5py. The bytes depend on the data alone.

    x     float32 (5698,57)  48 numeric features, 7 weekday columns (one-hot, Monday first), sine and cosine
                             of the day of the year; attributes `names` and `units`, one entry a column
    y     float32 (5698,1)   entries at the station, in thousands a day
    date  int32   (5698,)    days since 1970-01-01
"""

import argparse
import datetime
import math

import numpy as np

import convert

EPOCH = datetime.date(1970, 1, 1)
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
CHUNK_ROWS = 1024
SOURCE = "object Chicago of the R package modeldata, see NOTICE.md"
DAYS_PER_YEAR = 365.25

WEATHER_UNITS = {
    "temp_min": "degree Fahrenheit", "temp": "degree Fahrenheit", "temp_max": "degree Fahrenheit",
    "temp_change": "degree Fahrenheit", "dew": "degree Fahrenheit", "humidity": "percent",
    "pressure": "inch of mercury", "pressure_change": "inch of mercury",
    "wind": "mile per hour", "wind_max": "mile per hour",
    "gust": "mile per hour", "gust_max": "mile per hour",
    "percip": "inch", "percip_max": "inch",
    "weather_rain": "fraction of the day", "weather_snow": "fraction of the day",
    "weather_cloud": "fraction of the day", "weather_storm": "fraction of the day",
}  # fmt: skip


def unit_of(feature):
    if feature in WEATHER_UNITS:
        return WEATHER_UNITS[feature]
    if feature.endswith(("_Away", "_Home")):
        return "1 on the day of a game"
    return "thousand entries, 14 days before"


def calendar_columns(dates):
    """(N,9): the weekday one-hot, Monday first, then sine and cosine of the day of the year."""
    columns = np.zeros((len(dates), len(WEEKDAYS) + 2))
    for row, date in zip(columns, dates):
        angle = 2 * math.pi * date.timetuple().tm_yday / DAYS_PER_YEAR
        row[date.weekday()] = 1
        row[-2:] = math.sin(angle), math.cos(angle)
    return columns


def convert_chicago(arguments):
    rows = convert.read_r_table("chicago.R", "r-cran-modeldata")
    features = [name for name in rows[0] if name not in ("ridership", "date")]
    dates = [datetime.date.fromisoformat(row["date"]) for row in rows]
    numeric = np.array([[float(row[name]) for name in features] for row in rows])
    x = np.concatenate([numeric, calendar_columns(dates)], axis=1)
    y = np.array([[float(row["ridership"])] for row in rows])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise convert.ConversionError("Chicago of r-cran-modeldata holds a value that is not finite")

    names = features + WEEKDAYS + ["sin_day_of_year", "cos_day_of_year"]
    units = [unit_of(name) for name in features] + ["1 on that weekday"] * len(WEEKDAYS) + ["1", "1"]
    with convert.new_file(arguments.out) as file:
        file.attrs["source"] = convert.fixed_strings(SOURCE)
        convert.add(file, "x", x.astype("<f4"), CHUNK_ROWS, names=names, units=units)
        convert.add(file, "y", y.astype("<f4"), CHUNK_ROWS,
                    names=["ridership"], units=["thousand entries a day"])
        days = np.array([(date - EPOCH).days for date in dates], dtype="<i4")
        convert.add(file, "date", days, CHUNK_ROWS, units="days since 1970-01-01")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", default=convert.HERE / "chicago.h5",
                        help="file to write (default: beside this script)")
    convert.main(convert_chicago, parser.parse_args())
