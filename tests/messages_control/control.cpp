// Never compiled: what messages_test.py must complain of, a kind a line.
void control(double value) {
  require(value > 0, "NeumannOptions::step = {} is not positive", value);
  require(value > 0, "the step that NeumannOptions.step gives is {}; it must be positive", value);
  refuse<ConfigError>("the engine has no level; call Engine::add before.");
  refuse<ConfigError>("the level  has no loss; give one");
  if (value > 1) refuse<ConfigError>("the same words stand here a second time; make them one");
  refuse<ConfigError>("the same words stand here a second time; make them one");
}
