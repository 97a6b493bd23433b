"""Units, currencies and signs as people write them, and their names in Chinese and English."""

from __future__ import annotations

import re
from decimal import Decimal

NUMBER = r"\d+(?:\.\d+)?"
UNITS = {
    "km/h": ("公里每小时", "kilometers per hour"),
    "m/s": ("米每秒", "meters per second"),
    "mph": ("英里每小时", "miles per hour"),
    "km^2": ("平方公里", "square kilometers"),
    "cm^2": ("平方厘米", "square centimeters"),
    "m^2": ("平方米", "square meters"),
    "m^3": ("立方米", "cubic meters"),
    "°C": ("摄氏度", "degrees Celsius"),
    "°F": ("华氏度", "degrees Fahrenheit"),
    "kWh": ("千瓦时", "kilowatt hours"),
    "mAh": ("毫安时", "milliamp hours"),
    "kcal": ("千卡", "kilocalories"),
    "hPa": ("百帕", "hectopascals"),
    "GHz": ("吉赫兹", "gigahertz"),
    "MHz": ("兆赫兹", "megahertz"),
    "kHz": ("千赫兹", "kilohertz"),
    "Mbps": ("兆每秒", "megabits per second"),
    "min": ("分钟", "minutes"),
    "km": ("公里", "kilometers"),
    "kg": ("公斤", "kilograms"),
    "cm": ("厘米", "centimeters"),
    "mm": ("毫米", "millimeters"),
    "mg": ("毫克", "milligrams"),
    "ml": ("毫升", "milliliters"),
    "mL": ("毫升", "milliliters"),
    "ms": ("毫秒", "milliseconds"),
    "kW": ("千瓦", "kilowatts"),
    "Hz": ("赫兹", "hertz"),
    "dB": ("分贝", "decibels"),
    "lb": ("磅", "pounds"),
    "oz": ("盎司", "ounces"),
    "ft": ("英尺", "feet"),
    "mi": ("英里", "miles"),
    "m": ("米", "meters"),
    "g": ("克", "grams"),
    "L": ("升", "liters"),
    "W": ("瓦", "watts"),
    "V": ("伏", "volts"),
    "h": ("小时", "hours"),
    "s": ("秒", "seconds"),
    "°": ("度", "degrees"),
}
"""Behind a number only; longer ones first where one begins like another. The 1990s are no seconds."""
UNIT = re.compile(rf"(?<![\d.])(?!\d{{3}}0s)({NUMBER})\s*({'|'.join(map(re.escape, UNITS))})(?![A-Za-z0-9^])")

MONEY = {"$": ("美元", "dollars"), "¥": ("元", "yuan"), "€": ("欧元", "euros"), "£": ("英镑", "pounds")}
SCALES = {
    "万亿": 12, "万": 4, "亿": 8, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "K": 3, "k": 3, "M": 6, "B": 9,
}  # fmt: skip
"""What may follow the number of a price, as a power of ten; longer ones first."""
PRICE = re.compile(rf"([$¥€£])\s*({NUMBER})(?:\s*({'|'.join(SCALES)})(?![A-Za-z]))?(?:\s*(?:美元|元|块))?")

SIGNS = {
    "±": ("正负", "plus or minus"),
    "≈": ("约等于", "is about"),
    "≠": ("不等于", "is not"),
    "≤": ("小于等于", "is at most"),
    "≥": ("大于等于", "is at least"),
    "<": ("小于", "is less than"),
    ">": ("大于", "is more than"),
    "+": ("加", "plus"),
    "×": ("乘以", "times"),
    "÷": ("除以", "divided by"),
    "=": ("等于", "equals"),
    "√": ("根号", "the root of"),
    "∞": ("无穷大", "infinity"),
    "π": ("派", "pi"),
    "&": ("和", "and"),
    "°": ("度", "degrees"),
}

PHONE = re.compile(
    r"(?<![\d.-])(?:(?:\+\s?\d{1,3}[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}"  # mobiles in China
    r"|0\d{2,3}-\d{7,8}|[48]00-\d{3}-\d{4}"  # there with an area code, and free of charge
    r"|(?:\+?\d{1,3}[- ])?\(?\d{3}\)?[- ]\d{3}-\d{4}|\d{3}-\d{4})(?![\d.-])"  # North America
)


def scaled(amount: str, power: int) -> str:
    """Return decimal ``amount`` times 10 to the ``power``, without a fraction of zeros: ("1.50", 3) as "1500"."""
    number = f"{Decimal(amount).scaleb(power):f}"
    integer, _, fraction = number.partition(".")
    return number if fraction.strip("0") else integer
