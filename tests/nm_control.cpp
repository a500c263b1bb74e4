// The negative control of nm_test.sh: everything that the library must not refer to. It is
// compiled, never linked.
#include <cassert>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>

#include <unistd.h>

void refers_to_everything_forbidden(int choice, const char* text, va_list arguments) {
  struct sigaction action = {};
  assert(choice >= 0);
  switch (choice) {
    case 0: std::cout << text; break;
    case 1: std::cerr << text; break;
    case 2: std::clog << text; break;
    case 3: std::printf("%d %s", choice, text); break;
    case 4: std::puts(text); break;
    case 5: std::putchar(*text); break;
    case 6: std::vprintf(text, arguments); break;
    case 7: std::perror(text); break;
    case 8: std::fputs(text, stderr); break;
    case 9: std::abort();
    case 10: std::exit(choice);
    case 11: _exit(choice);
    case 12: std::quick_exit(choice);
    case 13: std::terminate();
    case 14: std::signal(choice, SIG_IGN); break;
    default: sigaction(choice, &action, nullptr);
  }
}
