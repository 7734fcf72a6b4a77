"""Everything one trial of a guidance sweep needs; knows neither Ray nor the grid."""
