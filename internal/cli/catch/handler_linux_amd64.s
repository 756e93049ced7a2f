#include "textflag.h"

// The kernel calls handler on the thread's signal stack, with the signal in DI, and
// puts all registers back. It is no Go: there may be no goroutine.
TEXT handler<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUBQ	$24, SP
	MOVB	DI, 8(SP)
	MOVLQSX	·writeEnd(SB), DI
	LEAQ	8(SP), SI
	MOVL	$1, DX
	MOVL	$1, AX // write
	SYSCALL
	ADDQ	$24, SP
	RET

TEXT restorer<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVL	$15, AX // rt_sigreturn
	SYSCALL
	INT	$3

// func handlers() (handler, restorer uintptr)
TEXT ·handlers(SB),NOSPLIT,$0-16
	LEAQ	handler<>(SB), AX
	MOVQ	AX, handler+0(FP)
	LEAQ	restorer<>(SB), AX
	MOVQ	AX, restorer+8(FP)
	RET
